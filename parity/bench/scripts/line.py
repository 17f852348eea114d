"""The fitted line from seed to printed weight, without PyTorch: started by ``parity bench`` beside PyTorch's."""

import jaxreg

generator = jaxreg.torch_random.Generator(0)
model = jaxreg.Linear(1, 1, rngs=generator)
x = generator.randn(100, 1)
y = 2 * x + generator.randn(100, 1)
result = jaxreg.fit(model, x, y, optimizer=jaxreg.sgd(0.01), epochs=1000)
print("Estimated weight:", result.model.kernel[...].item())
