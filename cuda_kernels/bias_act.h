// clamp(gain * act(x + b)) and its first two derivatives, element by element.
#pragma once

#include "common.h"

namespace psr {

// The order of `ACTIVATIONS` in stylegan_ops/bias_act.py. Linear and ReLU are leaky ReLUs of slope
// 1 and 0.
enum class Act : int32_t { lrelu = 0, tanh, sigmoid, elu, selu, softplus, swish };

struct BiasActArgs {
  const void* x;     // the input; or the output for the slope of a leaky ReLU without a clamp
  const void* b;     // bias, or null
  const void* dy;    // cotangent of the output, for orders 1 and 2
  const void* ddx;   // cotangent of the gradient, for order 2
  void* out;
  int64_t outer, channels, inner;  // memory order: [outer, channels, inner]
  double alpha, gain, clamp;       // clamp < 0: none
  DType dtype;
  Act act;
  int32_t order;  // 0: the value, 1: dy * f', 2: dy * ddx * f''
};

constexpr double kSeluScale = 1.0507009873554804934193349852946;
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;
constexpr double kSoftplusLinear = 20.0;  // above, softplus(u) = u, as in torch

PSR_HD float exp_(float u) { return expf(u); }
PSR_HD double exp_(double u) { return exp(u); }
PSR_HD float expm1_(float u) { return expm1f(u); }
PSR_HD double expm1_(double u) { return expm1(u); }
PSR_HD float log1p_(float u) { return log1pf(u); }
PSR_HD double log1p_(double u) { return log1p(u); }
PSR_HD float tanh_(float u) { return tanhf(u); }
PSR_HD double tanh_(double u) { return tanh(u); }

template <class A>
PSR_HD A sigmoid_(A u) {
  return A(1) / (A(1) + exp_(-u));
}

// Leaky ReLU; a slope of zero sends minus infinity to zero, as ReLU does.
template <class A>
PSR_HD A leaky(A u, A alpha) {
  return u > A(0) ? u : (alpha == A(0) && u < A(0)) ? A(0) : alpha * u;
}

// act(u), act'(u) or act''(u).
template <int kOrder, class A>
PSR_HD A activation(Act act, A u, A alpha) {
  const A one = A(1), zero = A(0);
  switch (act) {
    case Act::tanh: {
      const A t = tanh_(u), slope = one - t * t;
      return kOrder == 0 ? t : kOrder == 1 ? slope : A(-2) * t * slope;
    }
    case Act::sigmoid: {
      const A s = sigmoid_(u), slope = s * (one - s);
      return kOrder == 0 ? s : kOrder == 1 ? slope : slope * (one - A(2) * s);
    }
    case Act::elu:
      if (kOrder == 0) return u > zero ? u : expm1_(u);
      return u > zero ? A(2 - kOrder) : exp_(u);
    case Act::selu: {
      const A scale = A(kSeluScale), low = A(kSeluScale * kSeluAlpha);
      if (kOrder == 0) return u > zero ? scale * u : low * expm1_(u);
      return u > zero ? scale * A(2 - kOrder) : low * exp_(u);
    }
    case Act::softplus: {
      if (u > A(kSoftplusLinear)) return kOrder == 0 ? u : A(2 - kOrder);
      if (kOrder == 0) return log1p_(exp_(u));
      const A s = sigmoid_(u);
      return kOrder == 1 ? s : s * (one - s);
    }
    case Act::swish: {
      const A s = sigmoid_(u);
      if (kOrder == 0) return s * u;
      if (kOrder == 1) return s * (one + u * (one - s));
      return s * (one - s) * (A(2) + u * (one - A(2) * s));
    }
    default:
      if (kOrder == 0) return leaky(u, alpha);
      return kOrder == 1 ? (u > zero ? one : alpha) : zero;
  }
}

// Limits the absolute value; NaN stays NaN.
template <class A>
PSR_HD A limit(A v, A clamp) {
  return v > clamp ? clamp : v < -clamp ? -clamp : v;
}

template <class A>
struct BiasActNumbers {
  Act act;
  A alpha, gain, clamp;
};

// One element. `u` is the input with its bias, `cotangents` the product dy (* ddx).
// kSmooth = false promises a leaky ReLU.
template <int kOrder, bool kSmooth, class A>
PSR_HD A bias_act_element(A u, A cotangents, const BiasActNumbers<A>& p) {
  const Act act = kSmooth ? p.act : Act::lrelu;
  if (kOrder == 0) {
    const A v = activation<0>(act, u, p.alpha) * p.gain;
    return p.clamp < A(0) ? v : limit(v, p.clamp);
  }
  const A slope = activation<kOrder>(act, u, p.alpha) * p.gain;
  if (p.clamp >= A(0)) {
    const A v = activation<0>(act, u, p.alpha) * p.gain;
    if (v > p.clamp || v < -p.clamp) return A(0);
  }
  return cotangents * slope;
}

}  // namespace psr

extern "C" {
void psr_bias_act_cpu(const psr::BiasActArgs* args, psr::ParallelFor run);
int psr_bias_act_cuda(const psr::BiasActArgs* args, void* stream);
}
