"""The degradation operator A: from high-res images to what is known of a low-res picture.

    base.py       what an operator is: A, A', pseudo-inverse, projections, LR-PSNR
    separable.py  resampling, blur and `gray`: two matrices and three weights, all in closed form
    masked.py     some pixels are known (conjugate_gradients.py where there is no closed form)
    filed.py      JPEG files on the way, forward exact (jpeg.py), backward straight through
    building.py   from a spec (`pulse_sr.operators.spec`, docs/operators.md) to one of these
    projection.py exact projection of 8-bit images, soft projection to the noise
    degrading.py  low-res pictures, with noise and files
    ranking.py    which operator turned one picture into the other

Example:
    >>> import torch
    >>> from pulse_sr.operators.building import make_operator
    >>> A = make_operator("bicubic", low=8, high=32)
    >>> x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    >>> y = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    >>> bool(torch.allclose(A(A.project(x, y)), y))
    True
"""
