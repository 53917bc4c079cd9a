// torch.ops.guide_fast.native_modulated_conv2d*: tensors in NHWC, outputs and scratch are allocated by the caller.
#include "guide_fast/modulated_conv2d.h"

#include "tensors.h"

namespace {

using namespace gf::torch_binding;

float* floats(const OptionalTensor& t) { return static_cast<float*>(data(t)); }

// [N or 1, 1, H', W']
int64_t noise_stride(const OptionalTensor& noise) {
  return noise.has_value() && noise->size(0) > 1 ? noise->size(2) * noise->size(3) : 0;
}

void weight(Tensor weight, OptionalTensor packed, OptionalTensor power) {
  const gf_modulated_conv2d_weight a{dtype_of(weight), weight.size(0), weight.size(1), int32_t(weight.size(2)),
                                     data(weight), data(packed), floats(power)};
  launch(weight, a, gf_modulated_conv2d_weight_cpu, gf_modulated_conv2d_weight_cuda);
}

void forward(Tensor x, Tensor packed, OptionalTensor power, Tensor style, OptionalTensor noise, OptionalTensor bias,
             OptionalTensor next_style, OptionalTensor demod, OptionalTensor z, Tensor y, int64_t kernel, int64_t up,
             bool premodulated, std::string activation, double slope, double gain, double clamp) {
  const gf_modulated_conv2d a{dtype_of(x), x.size(0), x.size(1), y.size(1), x.size(2), x.size(3), int32_t(kernel),
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
  const gf_modulated_conv2d_backward a{dtype_of(gy), x.size(0), x.size(1), y.size(1), x.size(2), x.size(3),
                                       int32_t(kernel), int32_t(up), premodulated, data(gy), data(y), data(x),
                                       data(packed), floats(power), data(style), data(noise), noise_stride(noise),
                                       data(bias), floats(demod), data(g), data(gz), floats(gdemod), data(gx),
                                       floats(gpacked), floats(gstyle), floats(gbias), floats(gnoise),
                                       activation_of(activation), float(slope), float(gain), float(clamp)};
  check(gf_modulated_conv2d_backward_cuda(&a, stream_of(gy)));
}

const float* constants(const OptionalTensor& t) { return static_cast<const float*>(data(t)); }
const float* constants(const Tensor& t) { return static_cast<const float*>(data(t)); }

void finish(Tensor z, OptionalTensor demod, OptionalTensor noise, OptionalTensor bias, OptionalTensor next_style,
            Tensor y, std::string activation, double slope, double gain, double clamp) {
  const gf_modulated_conv2d_finish a{z.size(0), z.size(1), z.size(2) * z.size(3), constants(z), constants(demod),
                                     constants(noise), noise_stride(noise), constants(bias), constants(next_style),
                                     static_cast<float*>(data(y)), activation_of(activation), float(slope),
                                     float(gain), float(clamp)};
  check(gf_modulated_conv2d_finish_cpu(&a));
}

void finish_backward(Tensor gy, Tensor y, OptionalTensor demod, OptionalTensor noise, OptionalTensor bias,
                     OptionalTensor g, OptionalTensor gdemod, OptionalTensor gbias, OptionalTensor gnoise,
                     std::string activation, double slope, double gain, double clamp) {
  const gf_modulated_conv2d_finish_backward a{
      gy.size(0),    gy.size(1),        gy.size(2) * gy.size(3), constants(gy),  constants(y), constants(demod),
      constants(noise), noise_stride(noise), constants(bias),    floats(g),      floats(gdemod), floats(gbias),
      floats(gnoise),   activation_of(activation), float(slope), float(gain),    float(clamp)};
  check(gf_modulated_conv2d_finish_backward_cpu(&a));
}

void scale_backward(Tensor t, OptionalTensor x, OptionalTensor style, OptionalTensor gx, OptionalTensor gstyle) {
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
  m.impl("native_modulated_conv2d_finish", TORCH_BOX(&finish));
  m.impl("native_modulated_conv2d_finish_backward", TORCH_BOX(&finish_backward));
  m.impl("native_modulated_conv2d_scale_backward", TORCH_BOX(&scale_backward));
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) {
  m.impl("native_modulated_conv2d_weight", TORCH_BOX(&weight));
  m.impl("native_modulated_conv2d", TORCH_BOX(&forward));
  m.impl("native_modulated_conv2d_backward", TORCH_BOX(&backward));
}
