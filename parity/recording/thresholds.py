"""Where a function goes over to a simpler one because the recorded dtype cannot tell the two apart."""

# PyTorch's softplus is the identity above this. In float32 and narrower dtypes so is log(1 + exp(x)): what is left out
# is less than half a unit in the last place. The float64 runs of both sides keep that, for it is what was trained.
SOFTPLUS = 20.0
