"""Operations of PyTorch's database that the table has not, or not in all of their forms."""

from __future__ import annotations

UNTRANSLATED: set[str] = {
    "_batch_norm_with_update", "_native_batch_norm_legit", "_segment_reduce.lengths", "_segment_reduce.offsets",
    "_softmax_backward_data", "_unsafe_masked_index", "_unsafe_masked_index_put_accumulate",
    "_upsample_bilinear2d_aa", "angle", "as_strided.partial_views", "as_strided_scatter", "bernoulli",
    "bfloat16", "cartesian_prod", "combinations", "cumulative_trapezoid", "fft.fftshift", "fft.hfft",
    "fft.hfft2", "fft.hfftn", "fft.ifftshift", "fft.irfft", "fft.irfft2", "fft.irfftn", "frexp", "gradient",
    "grid_sampler_3d", "half", "index_reduce.amax", "index_reduce.amin", "index_reduce.mean",
    "index_reduce.prod", "linalg.cond", "linalg.det", "linalg.eigh", "linalg.eigvalsh",
    "linalg.householder_product", "linalg.lstsq", "linalg.lstsq.grad_oriented", "linalg.lu", "linalg.lu_factor",
    "linalg.lu_factor_ex", "linalg.lu_solve", "linalg.pinv", "linalg.pinv.hermitian", "linalg.solve",
    "linalg.solve_ex", "linalg.tensorinv", "linalg.tensorsolve", "linalg.vander", "lu", "lu_solve", "lu_unpack",
    "masked.median", "masked_select", "max_pool2d_with_indices_backward", "mode", "mvlgamma.mvlgamma_p_1",
    "mvlgamma.mvlgamma_p_3", "mvlgamma.mvlgamma_p_5", "nanmedian", "nanquantile", "native_batch_norm",
    "native_dropout_backward", "native_group_norm", "native_layer_norm", "nextafter",
    "nn.functional.alpha_dropout", "nn.functional.batch_norm", "nn.functional.ctc_loss",
    "nn.functional.embedding_bag", "nn.functional.feature_alpha_dropout.with_train",
    "nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d", "nn.functional.instance_norm",
    "nn.functional.interpolate.bicubic", "nn.functional.interpolate.nearest-exact",
    "nn.functional.linear_cross_entropy.chunked", "nn.functional.linear_cross_entropy.chunked_none",
    "nn.functional.max_pool2d", "nn.functional.max_pool3d", "nn.functional.max_unpool1d",
    "nn.functional.max_unpool1d.grad", "nn.functional.max_unpool2d", "nn.functional.max_unpool2d.grad",
    "nn.functional.max_unpool3d", "nn.functional.max_unpool3d.grad", "nn.functional.multilabel_margin_loss",
    "nn.functional.pad.replicate_negative", "nn.functional.pdist", "nn.functional.rrelu",
    "nn.functional.scaled_dot_product_attention", "normal", "normal.number_mean", "ormqr", "pca_lowrank",
    "polygamma.polygamma_n_0", "polygamma.polygamma_n_1", "polygamma.polygamma_n_2", "polygamma.polygamma_n_3",
    "polygamma.polygamma_n_4", "put", "quantile", "scatter_reduce.amax", "scatter_reduce.amin",
    "scatter_reduce.prod", "sgn", "slice", "sparse.mm.reduce", "sparse.sampled_addmm", "special.erfcx",
    "special.polygamma.special_polygamma_n_0", "stft", "svd", "svd_lowrank", "to_sparse",
    "torch.ops.aten._safe_softmax.default", "triangular_solve", "unfold", "unfold_copy",
}  # fmt: skip
