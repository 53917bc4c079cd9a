// torch.ops.guide_fast.native_modulated_conv2d*: tensors in NHWC, outputs and scratch are allocated by the caller.
#include "guide_fast/modulated_conv2d.h"

#include "operands.h"

namespace {

using namespace gf::torch_binding;

float* floats(const OptionalTensor& t) { return static_cast<float*>(data(t)); }

// Sizes of a layer, from x and the packed weight.
struct Layer {
  int64_t n, in, out, h, w, kernel, up;

  Layer(const Operands& operands, const Tensor& x, const Tensor& packed, int64_t kernel_size, int64_t factor)
      : kernel(kernel_size), up(factor) {
    operands.want((kernel == 1 || kernel == 3) && (up == 1 || up == 2), "kernel is ", kernel, ", up ", up,
                  "; it takes 1 or 3, 1 or 2");
    operands.rank("x", x, 4);
    operands.rank("packed", packed, 3);
    n = x.size(0), in = x.size(1), out = packed.size(2), h = x.size(2), w = x.size(3);
  }

  // What forward and backward take alike.
  void check(const Operands& operands, const Tensor& x, const Tensor& packed, const OptionalTensor& power,
             const Tensor& style, const OptionalTensor& noise, const OptionalTensor& bias,
             const OptionalTensor& demod, const Tensor& y) const {
    const ScalarType type = operands.type();
    operands.tensor("x", x, {n, in, h, w}, type, Order::nhwc);
    operands.tensor("packed", packed, {kernel * kernel, in, out}, type);
    operands.tensor("power", power, {out, in}, ScalarType::Float);
    operands.tensor("style", style, {n, in}, type);
    if (noise.has_value()) {
      operands.rank("noise", *noise, 4);
      operands.tensor("noise", noise, {noise->size(0) == 1 ? 1 : n, 1, up * h, up * w}, type);
    }
    operands.tensor("bias", bias, {out}, type);
    operands.want(!power.has_value() || demod.has_value(), "demod is missing; with power it is [N, O]");
    if (power.has_value()) operands.tensor("demod", demod, {n, out}, ScalarType::Float);
    operands.tensor("y", y, {n, out, up * h, up * w}, type, Order::nhwc);
  }

  // [N, O, 2H + k - 2, 2W + k - 2]: between the transposed convolution and the FIR of up = 2.
  void check_transposed(const Operands& operands, const char* name, const OptionalTensor& z) const {
    operands.tensor(name, z, {n, out, 2 * h + kernel - 2, 2 * w + kernel - 2}, operands.type(), Order::nhwc);
  }
};

// [N or 1, 1, H', W']
int64_t noise_stride(const OptionalTensor& noise) {
  return noise.has_value() && noise->size(0) > 1 ? noise->size(2) * noise->size(3) : 0;
}

void weight(Tensor weight, Tensor packed, OptionalTensor power) {
  const Operands operands("native_modulated_conv2d_weight", "weight", weight);
  operands.rank("weight", weight, 4);
  const int64_t out = weight.size(0), in = weight.size(1), kernel = weight.size(2);
  operands.want(kernel == 1 || kernel == 3, "weight has shape ", list_of(weight.sizes()), "; its kernel is 1 or 3");
  operands.tensor("weight", weight, {out, in, kernel, kernel}, operands.type());
  operands.tensor("packed", packed, {kernel * kernel, in, out}, operands.type());
  operands.tensor("power", power, {out, in}, ScalarType::Float);
  const gf_modulated_conv2d_weight a{operands.dtype(), weight.size(0), weight.size(1), int32_t(weight.size(2)),
                                     data(weight), data(packed), floats(power)};
  launch(weight, a, gf_modulated_conv2d_weight_cpu, gf_modulated_conv2d_weight_cuda);
}

void forward(Tensor x, Tensor packed, OptionalTensor power, Tensor style, OptionalTensor noise, OptionalTensor bias,
             OptionalTensor next_style, OptionalTensor demod, OptionalTensor z, Tensor y, int64_t kernel, int64_t up,
             bool premodulated, std::string activation, double slope, double gain, double clamp) {
  const Operands operands("native_modulated_conv2d", "x", x);
  const Layer layer(operands, x, packed, kernel, up);
  layer.check(operands, x, packed, power, style, noise, bias, demod, y);
  layer.check_transposed(operands, "z", up == 2 ? z : std::nullopt);
  operands.tensor("next_style", next_style, {layer.n, layer.out}, operands.type());
  const gf_modulated_conv2d a{operands.dtype(), layer.n, layer.in, layer.out, layer.h, layer.w, int32_t(kernel),
                              int32_t(up), premodulated, data(x), data(packed), floats(power), data(style),
                              data(noise), noise_stride(noise), data(bias), data(next_style), floats(demod), data(z),
                              data(y), activation_of(activation), float(slope), float(gain), float(clamp)};
  launch(x, a, gf_modulated_conv2d_cpu, gf_modulated_conv2d_cuda);
}

void backward(Tensor gy, Tensor y, Tensor x, Tensor packed, OptionalTensor power, Tensor style, OptionalTensor noise,
              OptionalTensor bias, OptionalTensor demod, OptionalTensor g, OptionalTensor gz, OptionalTensor gdemod,
              OptionalTensor gx, OptionalTensor gpacked, OptionalTensor gstyle, OptionalTensor gbias,
              OptionalTensor gnoise, int64_t kernel, int64_t up, bool premodulated, std::string activation,
              double slope, double gain, double clamp) {
  const Operands operands("native_modulated_conv2d_backward", "x", x);
  const Layer layer(operands, x, packed, kernel, up);
  layer.check(operands, x, packed, power, style, noise, bias, demod, y);
  layer.check_transposed(operands, "gz", gz);
  const int64_t n = layer.n, out = layer.out, height = up * layer.h, width = up * layer.w;
  operands.tensor("gy", gy, {n, out, height, width}, operands.type(), Order::nhwc);
  operands.tensor("g", g, {n, out, height, width}, operands.type(), Order::nhwc);
  operands.tensor("gdemod", gdemod, {n, out}, ScalarType::Float);
  operands.tensor("gx", gx, {n, layer.in, layer.h, layer.w}, operands.type(), Order::nhwc);
  operands.tensor("gpacked", gpacked, {kernel * kernel, layer.in, out}, ScalarType::Float);
  operands.tensor("gstyle", gstyle, {n, layer.in}, ScalarType::Float);
  operands.tensor("gbias", gbias, {out}, ScalarType::Float);
  operands.tensor("gnoise", gnoise, {n, height * width}, ScalarType::Float);
  operands.want(x.is_cuda(), "x is on the CPU; the backward pass is written for CUDA, impl='cpu' takes PyTorch's");
  const gf_modulated_conv2d_backward a{operands.dtype(), n, layer.in, out, layer.h, layer.w,
                                       int32_t(kernel), int32_t(up), premodulated, data(gy), data(y), data(x),
                                       data(packed), floats(power), data(style), data(noise), noise_stride(noise),
                                       data(bias), floats(demod), data(g), data(gz), floats(gdemod), data(gx),
                                       floats(gpacked), floats(gstyle), floats(gbias), floats(gnoise),
                                       activation_of(activation), float(slope), float(gain), float(clamp)};
  check(gf_modulated_conv2d_backward_cuda(&a, stream_of(gy)));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_modulated_conv2d_weight(Tensor weight, Tensor(a!) packed, Tensor(b!)? power) -> ()");
  m.def("native_modulated_conv2d(Tensor x, Tensor packed, Tensor? power, Tensor style, Tensor? noise, Tensor? bias, "
        "Tensor? next_style, Tensor(a!)? demod, Tensor(b!)? z, Tensor(c!) y, int kernel, int up, bool premodulated, "
        "str activation, float slope, float gain, float clamp) -> ()");
  m.def("native_modulated_conv2d_backward(Tensor gy, Tensor y, Tensor x, Tensor packed, Tensor? power, Tensor style, "
        "Tensor? noise, Tensor? bias, Tensor? demod, Tensor(a!)? g, Tensor(b!)? gz, Tensor(c!)? gdemod, "
        "Tensor(d!)? gx, Tensor(e!)? gpacked, Tensor(f!)? gstyle, Tensor(g!)? gbias, Tensor(h!)? gnoise, int kernel, "
        "int up, bool premodulated, str activation, float slope, float gain, float clamp) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) {
  m.impl("native_modulated_conv2d_weight", TORCH_BOX(&weight));
  m.impl("native_modulated_conv2d", TORCH_BOX(&forward));
  m.impl("native_modulated_conv2d_backward", TORCH_BOX(&backward));
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) {
  m.impl("native_modulated_conv2d_weight", TORCH_BOX(&weight));
  m.impl("native_modulated_conv2d", TORCH_BOX(&forward));
  m.impl("native_modulated_conv2d_backward", TORCH_BOX(&backward));
}
