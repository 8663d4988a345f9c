// Zero insertion, FIR filter and decimation of images: which taps meet which pixels.
#pragma once

#include "common.h"

namespace psr {

enum class Layout : int32_t { nchw = 0, nhwc = 1 };

struct Upfirdn2dArgs {
  const void* x;   // [n, c, in_h, in_w] in `layout`, dense
  const float* f;  // taps: [f_h] for both axes where separable, else [f_h, f_w]; not flipped
  void* y;         // [n, c, out_h, out_w] in `layout`, dense
  int64_t n, c, in_h, in_w, out_h, out_w;
  int32_t up_x, up_y, down_x, down_y;
  int32_t pad_x0, pad_y0;  // before the image, in up-sampled pixels; may be negative
  int32_t f_h, f_w;
  double gain;
  DType dtype;
  Layout layout;
  int32_t separable;  // 1: the filter is the outer product of one line of taps, f_h = f_w
  int32_t flip;       // 0: convolution, 1: correlation
};

// One axis of the filter. Output o is the sum over k < taps of w[k] * u[o * down - pad0 + k], where
// u[i * up] is pixel i and u is zero elsewhere, and w are the taps in the order in which they meet
// the image.
struct Axis {
  int64_t in, up, down, pad0, taps;
};

// Taps tap, tap + up, tap + 2 up, ... meet the pixels pixel, pixel + 1, pixel + 2, ...
struct Reach {
  int64_t pixel, tap, count;
};

PSR_HD Axis x_axis(const Upfirdn2dArgs& a) {
  return {a.in_w, a.up_x, a.down_x, a.pad_x0, a.f_w};
}

PSR_HD Axis y_axis(const Upfirdn2dArgs& a) {
  return {a.in_h, a.up_y, a.down_y, a.pad_y0, a.f_h};
}

// Where the tap that meets the image as number k is stored.
PSR_HD int64_t stored_tap(int64_t k, int64_t taps, int32_t flip) {
  return flip != 0 ? k : taps - 1 - k;
}

// What output `o` is made of if the image had no borders; `pixel` may lie outside.
PSR_HD Reach reach_unbounded(const Axis& axis, int64_t o) {
  const int64_t start = o * axis.down - axis.pad0;
  const int64_t pixel = start / axis.up + (start % axis.up > 0);  // rounded up, also below zero
  const int64_t tap = pixel * axis.up - start;
  return {pixel, tap, tap < axis.taps ? (axis.taps - tap + axis.up - 1) / axis.up : 0};
}

// What output `o` is made of, pixels of the image alone.
PSR_HD Reach reach(const Axis& axis, int64_t o) {
  Reach r = reach_unbounded(axis, o);
  if (r.pixel < 0) {
    r.tap -= r.pixel * axis.up;
    r.count += r.pixel;
    r.pixel = 0;
  }
  if (r.count > axis.in - r.pixel) r.count = axis.in - r.pixel;
  if (r.count < 0) r.count = 0;
  return r;
}

}  // namespace psr

extern "C" {
void psr_upfirdn2d_cpu(const psr::Upfirdn2dArgs* args, psr::ParallelFor run);
int psr_upfirdn2d_cuda(const psr::Upfirdn2dArgs* args, void* stream);
}
