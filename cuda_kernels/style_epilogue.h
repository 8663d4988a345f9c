// Everything between two modulated convolutions, and its gradient, element by element.
//
//   c  = fir(x), or x                        FIR: four separable taps, padding 1 (StyleGAN2's filter)
//   u  = d c + strength noise + b            d: demodulation, one factor a sample and channel
//   y  = clamp(gain * leaky_relu(u))
//   ys = s y                                 s: the style that the next convolution asks for
#pragma once

#include "bias_act.h"
#include "upfirdn2d.h"

namespace psr {

constexpr int kTaps = 4;

struct StyleEpilogueArgs {
  const void* x;         // [n, c, h, w] in `layout`; with taps [n, c, h + 1, w + 1]
  const void* d;         // [n, c], accumulator format
  const void* b;         // [c], accumulator format
  const void* noise;     // [noise_n, h, w], accumulator format, or null
  const void* strength;  // one number, accumulator format, or null for 1
  const void* s;         // [n, c], accumulator format, or null
  const float* taps;     // [4], correlated with x along both axes, or null
  void* y;               // forward: out, or null
  void* ys;              // forward: out, null exactly when s is
  const void* dy;        // backward: cotangent of y, or null
  const void* dys;       // backward: cotangent of ys, or null
  void* dc;              // backward: out, [n, c, h, w], the gradient of fir(x)
  void* dd;              // backward: out, [n, c] sums over the pixels of du c; accumulator format
  void* db;              // backward: out, [n, c] sums over the pixels of du
  void* ds;              // backward: out, [n, c] sums over the pixels of dys y, or null
  void* du;              // backward: out, [n, h, w] sums over the channels of du, or null
  void* workspace;       // CUDA backward: see psr_style_epilogue_workspace
  int64_t n, c, h, w, noise_n;
  double alpha, gain, clamp;  // clamp < 0: none
  DType dtype;
  Layout layout;
};

// What one element needs of its sample, channel and pixel.
template <class A>
struct EpilogueNumbers {
  A alpha, gain, clamp;
};

template <class A>
PSR_HD A epilogue_value(A u, const EpilogueNumbers<A>& p) {
  const A v = leaky(u, p.alpha) * p.gain;
  return p.clamp < A(0) ? v : limit(v, p.clamp);
}

// du / dy
template <class A>
PSR_HD A epilogue_slope(A u, const EpilogueNumbers<A>& p) {
  const A slope = (u > A(0) ? A(1) : p.alpha) * p.gain;
  if (p.clamp < A(0)) return slope;
  const A v = leaky(u, p.alpha) * p.gain;
  return v > p.clamp || v < -p.clamp ? A(0) : slope;
}

}  // namespace psr

extern "C" {
void psr_style_epilogue_cpu(const psr::StyleEpilogueArgs* args, psr::ParallelFor run);
void psr_style_epilogue_backward_cpu(const psr::StyleEpilogueArgs* args, psr::ParallelFor run);
int psr_style_epilogue_cuda(const psr::StyleEpilogueArgs* args, void* stream);
int psr_style_epilogue_backward_cuda(const psr::StyleEpilogueArgs* args, void* stream);
// How many accumulators the backward pass on CUDA needs beside its outputs.
int64_t psr_style_epilogue_workspace(const psr::StyleEpilogueArgs* args);
}
