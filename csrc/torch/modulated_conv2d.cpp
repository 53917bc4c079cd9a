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

void weight(Tensor weight, OptionalTensor packed, OptionalTensor power) {
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

const float* constants(const OptionalTensor& t) { return static_cast<const float*>(data(t)); }
const float* constants(const Tensor& t) { return static_cast<const float*>(data(t)); }

// [N, C, H, W] in NHWC, float32, with what is added to it.
void check_finished(const Operands& operands, const char* name, const Tensor& z, const OptionalTensor& demod,
                    const OptionalTensor& noise, const OptionalTensor& bias) {
  operands.rank(name, z, 4);
  const int64_t n = z.size(0), channels = z.size(1), h = z.size(2), w = z.size(3);
  operands.tensor(name, z, {n, channels, h, w}, ScalarType::Float, Order::nhwc);
  operands.tensor("demod", demod, {n, channels}, ScalarType::Float);
  if (noise.has_value()) {
    operands.rank("noise", *noise, 4);
    operands.tensor("noise", noise, {noise->size(0) == 1 ? 1 : n, 1, h, w}, ScalarType::Float);
  }
  operands.tensor("bias", bias, {channels}, ScalarType::Float);
}

void finish(Tensor z, OptionalTensor demod, OptionalTensor noise, OptionalTensor bias, OptionalTensor next_style,
            Tensor y, std::string activation, double slope, double gain, double clamp) {
  const Operands operands("native_modulated_conv2d_finish", "z", z);
  check_finished(operands, "z", z, demod, noise, bias);
  operands.tensor("next_style", next_style, {z.size(0), z.size(1)}, ScalarType::Float);
  operands.tensor("y", y, {z.size(0), z.size(1), z.size(2), z.size(3)}, ScalarType::Float, Order::nhwc);
  const gf_modulated_conv2d_finish a{z.size(0), z.size(1), z.size(2) * z.size(3), constants(z), constants(demod),
                                     constants(noise), noise_stride(noise), constants(bias), constants(next_style),
                                     static_cast<float*>(data(y)), activation_of(activation), float(slope),
                                     float(gain), float(clamp)};
  check(gf_modulated_conv2d_finish_cpu(&a));
}

void finish_backward(Tensor gy, Tensor y, OptionalTensor demod, OptionalTensor noise, OptionalTensor bias,
                     OptionalTensor g, OptionalTensor gdemod, OptionalTensor gbias, OptionalTensor gnoise,
                     std::string activation, double slope, double gain, double clamp) {
  const Operands operands("native_modulated_conv2d_finish_backward", "gy", gy);
  check_finished(operands, "gy", gy, demod, noise, bias);
  const int64_t n = gy.size(0), channels = gy.size(1), h = gy.size(2), w = gy.size(3);
  operands.tensor("y", y, {n, channels, h, w}, ScalarType::Float, Order::nhwc);
  operands.tensor("g", g, {n, channels, h, w}, ScalarType::Float, Order::nhwc);
  operands.tensor("gdemod", gdemod, {n, channels}, ScalarType::Float);
  operands.tensor("gbias", gbias, {channels}, ScalarType::Float);
  operands.tensor("gnoise", gnoise, {n, h * w}, ScalarType::Float);
  const gf_modulated_conv2d_finish_backward a{
      gy.size(0),    gy.size(1),        gy.size(2) * gy.size(3), constants(gy),  constants(y), constants(demod),
      constants(noise), noise_stride(noise), constants(bias),    floats(g),      floats(gdemod), floats(gbias),
      floats(gnoise),   activation_of(activation), float(slope), float(gain),    float(clamp)};
  check(gf_modulated_conv2d_finish_backward_cpu(&a));
}

void scale_backward(Tensor t, OptionalTensor x, OptionalTensor style, OptionalTensor gx, OptionalTensor gstyle) {
  const Operands operands("native_modulated_conv2d_scale_backward", "t", t);
  check_finished(operands, "t", t, std::nullopt, std::nullopt, std::nullopt);
  const int64_t n = t.size(0), channels = t.size(1), h = t.size(2), w = t.size(3);
  operands.tensor("x", x, {n, channels, h, w}, ScalarType::Float, Order::nhwc);
  operands.tensor("style", style, {n, channels}, ScalarType::Float);
  operands.tensor("gx", gx, {n, channels, h, w}, ScalarType::Float, Order::nhwc);
  operands.tensor("gstyle", gstyle, {n, channels}, ScalarType::Float);
  const gf_modulated_conv2d_scale_backward a{t.size(0), t.size(1), t.size(2) * t.size(3), constants(t), constants(x),
                                             constants(style), floats(gx), floats(gstyle)};
  check(gf_modulated_conv2d_scale_backward_cpu(&a));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_modulated_conv2d_weight(Tensor weight, Tensor(a!)? packed, Tensor(b!)? power) -> ()");
  m.def("native_modulated_conv2d_finish(Tensor z, Tensor? demod, Tensor? noise, Tensor? bias, Tensor? next_style, "
        "Tensor(a!) y, str activation, float slope, float gain, float clamp) -> ()");
  m.def("native_modulated_conv2d_finish_backward(Tensor gy, Tensor y, Tensor? demod, Tensor? noise, Tensor? bias, "
        "Tensor(a!)? g, Tensor(b!)? gdemod, Tensor(c!)? gbias, Tensor(d!)? gnoise, str activation, float slope, "
        "float gain, float clamp) -> ()");
  m.def("native_modulated_conv2d_scale_backward(Tensor t, Tensor? x, Tensor? style, Tensor(a!)? gx, "
        "Tensor(b!)? gstyle) -> ()");
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
  m.impl("native_modulated_conv2d_finish", TORCH_BOX(&finish));
  m.impl("native_modulated_conv2d_finish_backward", TORCH_BOX(&finish_backward));
  m.impl("native_modulated_conv2d_scale_backward", TORCH_BOX(&scale_backward));
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) {
  m.impl("native_modulated_conv2d_weight", TORCH_BOX(&weight));
  m.impl("native_modulated_conv2d", TORCH_BOX(&forward));
  m.impl("native_modulated_conv2d_backward", TORCH_BOX(&backward));
}
