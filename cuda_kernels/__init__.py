"""C++ and CUDA sources of the fused ops; `stylegan_ops` compiles and loads them."""

from pathlib import Path

#: Where the sources and their headers lie.
FOLDER = Path(__file__).parent
#: Translation units of the CPU library.
CPU_SOURCES = ("binding.cpp", "bias_act_cpu.cpp", "upfirdn2d_cpu.cpp", "style_epilogue_cpu.cpp")
#: Translation units of the CUDA library, which registers its kernels beside those of the CPU.
CUDA_SOURCES = (
    "binding.cpp",
    "bias_act.cu",
    "upfirdn2d.cu",
    "style_epilogue.cu",
    "style_epilogue_backward.cu",
)
