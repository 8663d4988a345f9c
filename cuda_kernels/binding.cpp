// Where the kernels meet torch, through LibTorch's stable ABI (torch 2.10 and later).
//
// Compiled once for each library: plain, it defines the operators and their CPU kernels; with
// PSR_CUDA it registers the CUDA kernels for the same operators; with PSR_EMULATE it offers those
// CUDA kernels, run by the tests' emulated device on CPU tensors, in a namespace of their own.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>
#include <vector>

#include "bias_act.h"
#include "style_epilogue.h"
#include "upfirdn2d.h"

#if defined(PSR_EMULATE)
extern "C" const char* psr_emulation_error();
#endif

namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using psr::DType;
using psr::Layout;

// ---------------------------------------------------------------- how kernels are run

#if defined(PSR_CUDA) || defined(PSR_EMULATE)

void check(int code, [[maybe_unused]] const char* name) {
#if defined(PSR_EMULATE)
  STD_TORCH_CHECK(code == 0, name, ": ", psr_emulation_error());
#else
  char* message = nullptr;
  torch_c10_cuda_check_msg(code, __FILE__, name, __LINE__, true, &message);
  if (message != nullptr) {
    const std::string text(message);
    torch_c10_cuda_free_error_msg(message);
    STD_TORCH_CHECK(false, text);
  }
#endif
}

template <class Args>
void run(int (*kernel)(const Args*, void*), const Args& args, const Tensor& like,
         const char* name) {
#if defined(PSR_EMULATE)
  (void)like;
  check(kernel(&args, nullptr), name);
#else
  const torch::stable::accelerator::DeviceGuard guard(like.get_device_index());
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &stream));
  check(kernel(&args, stream), name);
#endif
}

#define PSR_RUN(op, args, like) run(psr_##op##_cuda, args, like, #op)

#else

void parallel_for(int64_t count, int64_t grain, psr::ParallelBody body, void* context) {
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    body(begin, end, context);
  });
}

#define PSR_RUN(op, args, like) psr_##op##_cpu(&(args), parallel_for)

#endif

// ---------------------------------------------------------------- tensors

DType dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return DType::f32;
    case ScalarType::Half: return DType::f16;
    case ScalarType::BFloat16: return DType::bf16;
    case ScalarType::Double: return DType::f64;
    default: break;
  }
  STD_TORCH_CHECK(false, "expected float32, float16, bfloat16 or float64 values");
}

ScalarType accumulator_of(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Whether the elements of x lie without gaps in the order of dimensions that `order` gives, the
// slowest first. Dimensions of one element lie anywhere.
bool dense_in(const Tensor& x, const std::vector<int>& order) {
  int64_t expected = 1;
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    if (x.size(*it) != 1 && x.stride(*it) != expected) return false;
    expected *= x.size(*it);
  }
  return true;
}

bool is_nhwc(const Tensor& x) {
  return x.dim() == 4 && x.size(1) > 1 && dense_in(x, {0, 2, 3, 1});
}

Layout layout_of(const Tensor& x) { return is_nhwc(x) ? Layout::nhwc : Layout::nchw; }

MemoryFormat format_of(Layout layout) {
  return layout == Layout::nhwc ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

// x without gaps: as it is when it lies in channels_last or plain order, else a plain copy.
Tensor dense(const Tensor& x) {
  return is_nhwc(x) || x.is_contiguous() ? x : torch::stable::contiguous(x);
}

// x in the layout of another tensor.
Tensor in_layout(const Tensor& x, Layout layout) {
  if (layout == Layout::nhwc) {
    return dense_in(x, {0, 2, 3, 1}) ? x
                                     : torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
  }
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

Tensor make(const Tensor& like, const std::vector<int64_t>& size, ScalarType type,
            Layout layout = Layout::nchw) {
  return torch::stable::empty(size, type, std::nullopt, like.device(), std::nullopt,
                              size.size() == 4 ? format_of(layout) : MemoryFormat::Contiguous);
}

Tensor nothing(const Tensor& like) { return make(like, {0}, like.scalar_type()); }

const void* pointer(const OptionalTensor& x) {
  return x.has_value() ? x->const_data_ptr() : nullptr;
}

void check_shape(const Tensor& x, const std::vector<int64_t>& size, const char* name) {
  bool good = x.dim() == static_cast<int64_t>(size.size());
  for (size_t i = 0; good && i < size.size(); ++i) good = x.size(i) == size[i];
  STD_TORCH_CHECK(good, name, " has the wrong shape");
}

// A small operand in plain order and in the format that `like` is accumulated in.
OptionalTensor operand(const OptionalTensor& x, const Tensor& like,
                       const std::vector<int64_t>& size, const char* name) {
  if (!x.has_value()) return x;
  check_shape(*x, size, name);
  STD_TORCH_CHECK(x->scalar_type() == accumulator_of(like), name,
                  " is not in the accumulator's format");
  return x->is_contiguous() ? *x : torch::stable::contiguous(*x);
}

// ---------------------------------------------------------------- bias_act

Tensor run_bias_act(int order, const Tensor& x_in, const OptionalTensor& b_in,
                    const OptionalTensor& dy_in, const OptionalTensor& ddx_in, int64_t dim,
                    int64_t act, double alpha, double gain, std::optional<double> clamp) {
  const Layout layout = dim == 1 ? layout_of(x_in) : Layout::nchw;
  const Tensor x = in_layout(x_in, layout);
  Tensor out = torch::stable::empty_like(x);
  psr::BiasActArgs a{};
  a.order = order;
  a.dtype = dtype_of(x);
  a.act = static_cast<psr::Act>(act);
  a.alpha = alpha;
  a.gain = gain;
  a.clamp = clamp.value_or(-1.0);
  a.outer = a.channels = 1;
  a.inner = x.numel();
  OptionalTensor b = b_in, dy = dy_in, ddx = ddx_in;
  if (b.has_value()) {
    STD_TORCH_CHECK(dim >= 0 && dim < x.dim(), "dim is not a dimension of x");
    check_shape(*b, {x.size(dim)}, "b");
    STD_TORCH_CHECK(b->scalar_type() == x.scalar_type(), "b and x differ in their number format");
    b = torch::stable::contiguous(*b);
    a.channels = x.size(dim);
    for (int64_t i = 0; i < x.dim(); ++i) {
      if (i < dim || (i > dim && layout == Layout::nhwc)) a.outer *= x.size(i);
    }
    const int64_t rows = a.outer * a.channels;
    a.inner = rows == 0 ? 0 : x.numel() / rows;
  }
  for (OptionalTensor* each : {&dy, &ddx}) {
    if (each->has_value()) *each = in_layout(each->value(), layout);
  }
  a.x = x.const_data_ptr();
  a.b = pointer(b);
  a.dy = pointer(dy);
  a.ddx = pointer(ddx);
  a.out = out.mutable_data_ptr();
  if (x.numel() > 0) PSR_RUN(bias_act, a, x);
  return out;
}

Tensor bias_act(const Tensor& x, const OptionalTensor& b, int64_t dim, int64_t act, double alpha,
                double gain, std::optional<double> clamp) {
  return run_bias_act(0, x, b, std::nullopt, std::nullopt, dim, act, alpha, gain, clamp);
}

Tensor bias_act_backward(const Tensor& dy, const Tensor& x, const OptionalTensor& b, int64_t dim,
                         int64_t act, double alpha, double gain, std::optional<double> clamp) {
  return run_bias_act(1, x, b, dy, std::nullopt, dim, act, alpha, gain, clamp);
}

Tensor bias_act_curvature(const Tensor& ddx, const Tensor& dy, const Tensor& x,
                          const OptionalTensor& b, int64_t dim, int64_t act, double alpha,
                          double gain, std::optional<double> clamp) {
  return run_bias_act(2, x, b, dy, ddx, dim, act, alpha, gain, clamp);
}

// ---------------------------------------------------------------- upfirdn2d

Tensor upfirdn2d(const Tensor& x_in, const Tensor& f_in, int64_t up_x, int64_t up_y,
                 int64_t down_x, int64_t down_y, int64_t pad_x0, int64_t pad_x1, int64_t pad_y0,
                 int64_t pad_y1, bool flip, double gain) {
  STD_TORCH_CHECK(x_in.dim() == 4, "x is not [N, C, H, W]");
  STD_TORCH_CHECK(f_in.scalar_type() == ScalarType::Float, "f is not float32");
  STD_TORCH_CHECK(f_in.dim() == 1 || f_in.dim() == 2, "f is neither [k] nor [kh, kw]");
  STD_TORCH_CHECK(up_x > 0 && up_y > 0 && down_x > 0 && down_y > 0, "a factor is below 1");
  const Tensor x = dense(x_in);
  const bool separable = f_in.dim() == 1;
  const Tensor f = torch::stable::contiguous(f_in);
  psr::Upfirdn2dArgs a{};
  a.n = x.size(0);
  a.c = x.size(1);
  a.in_h = x.size(2);
  a.in_w = x.size(3);
  a.f_h = static_cast<int32_t>(f.size(0));
  a.f_w = static_cast<int32_t>(f.size(separable ? 0 : 1));
  const int64_t over_h = a.in_h * up_y + pad_y0 + pad_y1 - a.f_h;
  const int64_t over_w = a.in_w * up_x + pad_x0 + pad_x1 - a.f_w;
  STD_TORCH_CHECK(over_h >= 0 && over_w >= 0, "the filter is larger than the padded image");
  a.out_h = over_h / down_y + 1;
  a.out_w = over_w / down_x + 1;
  a.up_x = static_cast<int32_t>(up_x);
  a.up_y = static_cast<int32_t>(up_y);
  a.down_x = static_cast<int32_t>(down_x);
  a.down_y = static_cast<int32_t>(down_y);
  a.pad_x0 = static_cast<int32_t>(pad_x0);
  a.pad_y0 = static_cast<int32_t>(pad_y0);
  a.gain = gain;
  a.dtype = dtype_of(x);
  a.layout = layout_of(x);
  a.separable = separable;
  a.flip = flip;
  Tensor y = make(x, {a.n, a.c, a.out_h, a.out_w}, x.scalar_type(), a.layout);
  a.x = x.const_data_ptr();
  a.f = static_cast<const float*>(f.const_data_ptr());
  a.y = y.mutable_data_ptr();
  if (y.numel() > 0) PSR_RUN(upfirdn2d, a, x);
  return y;
}

// ---------------------------------------------------------------- style_epilogue

// Operands that live as long as the pointers of the arguments do.
struct EpilogueOperands {
  Tensor x;
  OptionalTensor d, b, noise, strength, s, taps;
  psr::StyleEpilogueArgs args{};
};

EpilogueOperands epilogue_operands(const Tensor& x_in, const Tensor& d, const Tensor& b,
                                   const OptionalTensor& noise, const OptionalTensor& strength,
                                   const OptionalTensor& s, const OptionalTensor& taps,
                                   double alpha, double gain, std::optional<double> clamp) {
  STD_TORCH_CHECK(x_in.dim() == 4, "x is not [N, C, H, W]");
  EpilogueOperands o;
  o.x = taps.has_value() ? in_layout(x_in, Layout::nhwc) : dense(x_in);
  psr::StyleEpilogueArgs& a = o.args;
  const int64_t border = taps.has_value() ? 1 : 0;
  a.n = o.x.size(0);
  a.c = o.x.size(1);
  a.h = o.x.size(2) - border;
  a.w = o.x.size(3) - border;
  STD_TORCH_CHECK(a.h >= 0 && a.w >= 0, "x is too small for the filter");
  a.noise_n = noise.has_value() && noise->dim() == 4 ? noise->size(0) : 1;
  STD_TORCH_CHECK(a.noise_n == 1 || a.noise_n == a.n, "noise is for another number of samples");
  o.d = operand(d, o.x, {a.n, a.c}, "d");
  o.b = operand(b, o.x, {a.c}, "b");
  o.noise = operand(noise, o.x, {a.noise_n, 1, a.h, a.w}, "noise");
  o.strength = operand(strength, o.x, {}, "strength");
  o.s = operand(s, o.x, {a.n, a.c}, "s");
  if (taps.has_value()) {
    check_shape(*taps, {psr::kTaps}, "taps");
    STD_TORCH_CHECK(taps->scalar_type() == ScalarType::Float, "taps are not float32");
    o.taps = torch::stable::contiguous(*taps);
  }
  a.x = o.x.const_data_ptr();
  a.d = pointer(o.d);
  a.b = pointer(o.b);
  a.noise = pointer(o.noise);
  a.strength = pointer(o.strength);
  a.s = pointer(o.s);
  a.taps = static_cast<const float*>(pointer(o.taps));
  a.alpha = alpha;
  a.gain = gain;
  a.clamp = clamp.value_or(-1.0);
  a.dtype = dtype_of(o.x);
  a.layout = taps.has_value() ? Layout::nhwc : layout_of(o.x);
  return o;
}

std::tuple<Tensor, Tensor> style_epilogue(const Tensor& x, const Tensor& d, const Tensor& b,
                                          const OptionalTensor& noise,
                                          const OptionalTensor& strength, const OptionalTensor& s,
                                          const OptionalTensor& taps, double alpha, double gain,
                                          std::optional<double> clamp, bool keep) {
  STD_TORCH_CHECK(keep || s.has_value(), "neither y nor s y is asked for");
  EpilogueOperands o = epilogue_operands(x, d, b, noise, strength, s, taps, alpha, gain, clamp);
  psr::StyleEpilogueArgs& a = o.args;
  const std::vector<int64_t> size{a.n, a.c, a.h, a.w};
  Tensor y = keep ? make(o.x, size, o.x.scalar_type(), a.layout) : nothing(o.x);
  Tensor ys = s.has_value() ? make(o.x, size, o.x.scalar_type(), a.layout) : nothing(o.x);
  a.y = keep ? y.mutable_data_ptr() : nullptr;
  a.ys = s.has_value() ? ys.mutable_data_ptr() : nullptr;
  if (a.n * a.c * a.h * a.w > 0) PSR_RUN(style_epilogue, a, o.x);
  return {y, ys};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> style_epilogue_backward(
    const OptionalTensor& dy_in, const OptionalTensor& dys_in, const Tensor& x, const Tensor& d,
    const Tensor& b, const OptionalTensor& noise, const OptionalTensor& strength,
    const OptionalTensor& s, const OptionalTensor& taps, double alpha, double gain,
    std::optional<double> clamp, bool want_du) {
  STD_TORCH_CHECK(dy_in.has_value() || dys_in.has_value(), "no cotangent");
  STD_TORCH_CHECK(s.has_value() || !dys_in.has_value(), "a cotangent of s y without s");
  EpilogueOperands o = epilogue_operands(x, d, b, noise, strength, s, taps, alpha, gain, clamp);
  psr::StyleEpilogueArgs& a = o.args;
  const std::vector<int64_t> size{a.n, a.c, a.h, a.w};
  OptionalTensor dy = dy_in, dys = dys_in;
  for (OptionalTensor* each : {&dy, &dys}) {
    if (!each->has_value()) continue;
    check_shape(each->value(), size, "a cotangent");
    *each = in_layout(each->value(), a.layout);
  }
  const ScalarType accumulator = accumulator_of(o.x);
  const bool empty = a.n * a.c * a.h * a.w == 0;
  const auto sums = [&](bool wanted, const std::vector<int64_t>& shape) {
    if (!wanted) return make(o.x, {0}, accumulator);
    Tensor out = make(o.x, shape, accumulator);
    if (empty) torch::stable::zero_(out);
    return out;
  };
  Tensor dc = make(o.x, size, o.x.scalar_type(), a.layout);
  Tensor dd = sums(true, {a.n, a.c}), db = sums(true, {a.n, a.c});
  Tensor ds = sums(dys.has_value(), {a.n, a.c});
  Tensor du = sums(want_du, {a.n, 1, a.h, a.w});
  a.dy = pointer(dy);
  a.dys = pointer(dys);
  a.dc = dc.mutable_data_ptr();
  a.dd = dd.mutable_data_ptr();
  a.db = db.mutable_data_ptr();
  a.ds = dys.has_value() ? ds.mutable_data_ptr() : nullptr;
  a.du = want_du ? du.mutable_data_ptr() : nullptr;
#if defined(PSR_CUDA) || defined(PSR_EMULATE)
  Tensor workspace = make(o.x, {empty ? 0 : psr_style_epilogue_workspace(&a)}, accumulator);
  a.workspace = workspace.mutable_data_ptr();
#endif
  if (!empty) PSR_RUN(style_epilogue_backward, a, o.x);
  return {dc, dd, db, ds, du};
}

}  // namespace

// ---------------------------------------------------------------- registration

#if defined(PSR_EMULATE)
#define PSR_NAMESPACE stylegan_ops_emulated
#else
#define PSR_NAMESPACE stylegan_ops
#endif

// torch 2.10 takes the letters of its argument for the name: here it is the namespace itself.
#define PSR_LIBRARY(ns, m) STABLE_TORCH_LIBRARY(ns, m)

#if !defined(PSR_CUDA)

PSR_LIBRARY(PSR_NAMESPACE, m) {
  m.def(
      "bias_act(Tensor x, Tensor? b, int dim, int act, float alpha, float gain, float? clamp) "
      "-> Tensor");
  m.def(
      "bias_act_backward(Tensor dy, Tensor x, Tensor? b, int dim, int act, float alpha, "
      "float gain, float? clamp) -> Tensor");
  m.def(
      "bias_act_curvature(Tensor ddx, Tensor dy, Tensor x, Tensor? b, int dim, int act, "
      "float alpha, float gain, float? clamp) -> Tensor");
  m.def(
      "upfirdn2d(Tensor x, Tensor f, int up_x, int up_y, int down_x, int down_y, int pad_x0, "
      "int pad_x1, int pad_y0, int pad_y1, bool flip, float gain) -> Tensor");
  m.def(
      "style_epilogue(Tensor x, Tensor d, Tensor b, Tensor? noise, Tensor? strength, Tensor? s, "
      "Tensor? taps, float alpha, float gain, float? clamp, bool keep) -> (Tensor, Tensor)");
  m.def(
      "style_epilogue_backward(Tensor? dy, Tensor? dys, Tensor x, Tensor d, Tensor b, "
      "Tensor? noise, Tensor? strength, Tensor? s, Tensor? taps, float alpha, float gain, "
      "float? clamp, bool want_du) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

#endif

#if defined(PSR_CUDA)
STABLE_TORCH_LIBRARY_IMPL(PSR_NAMESPACE, CUDA, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(PSR_NAMESPACE, CPU, m) {
#endif
  m.impl("bias_act", TORCH_BOX(&bias_act));
  m.impl("bias_act_backward", TORCH_BOX(&bias_act_backward));
  m.impl("bias_act_curvature", TORCH_BOX(&bias_act_curvature));
  m.impl("upfirdn2d", TORCH_BOX(&upfirdn2d));
  m.impl("style_epilogue", TORCH_BOX(&style_epilogue));
  m.impl("style_epilogue_backward", TORCH_BOX(&style_epilogue_backward));
}
