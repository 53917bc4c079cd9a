// torch.ops.guide_fast.native_separable_conv2d*: outputs are allocated by the caller.
#include "guide_fast/separable_conv2d.h"

#include "tensors.h"

namespace {

using namespace gf::torch_binding;

float* floats(const OptionalTensor& t) { return static_cast<float*>(data(t)); }

void forward(Tensor x, OptionalTensor haar_style, OptionalTensor depthwise, Tensor pointwise, Tensor style,
             OptionalTensor noise, OptionalTensor bias, OptionalTensor next_style, Tensor y, bool nhwc,
             std::string activation, double slope, double gain, double clamp) {
  const gf_separable_conv2d a{dtype_of(x), nhwc, y.size(0), style.size(1), y.size(1), y.size(2), y.size(3),
                              data(x), data(haar_style), data(depthwise), data(pointwise), data(style),
                              data(noise), noise ? noise->size(0) : 1, data(bias), data(next_style), data(y),
                              activation_of(activation), float(slope), float(gain), float(clamp)};
  launch(x, a, gf_separable_conv2d_cpu, gf_separable_conv2d_cuda);
}

void backward(Tensor gy, Tensor y, Tensor x, OptionalTensor haar_style, OptionalTensor depthwise, Tensor pointwise,
              Tensor style, OptionalTensor gx, OptionalTensor ghaar_style, OptionalTensor gdepthwise,
              OptionalTensor gpointwise, OptionalTensor gstyle, OptionalTensor gnoise, OptionalTensor gbias,
              OptionalTensor g, OptionalTensor t, bool nhwc, std::string activation, double slope, double gain,
              double clamp) {
  const gf_separable_conv2d_backward a{dtype_of(x), nhwc, y.size(0), style.size(1), y.size(1), y.size(2), y.size(3),
                                       data(gy), data(y), data(x), data(haar_style), data(depthwise),
                                       data(pointwise), data(style), gnoise ? gnoise->size(0) : 1, data(gx),
                                       floats(ghaar_style), floats(gdepthwise), floats(gpointwise), floats(gstyle),
                                       floats(gnoise), floats(gbias), data(g), data(t), activation_of(activation),
                                       float(slope), float(gain), float(clamp)};
  launch(x, a, gf_separable_conv2d_backward_cpu, gf_separable_conv2d_backward_cuda);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(guide_fast, m) {
  m.def("native_separable_conv2d(Tensor x, Tensor? haar_style, Tensor? depthwise, Tensor pointwise, Tensor style, "
        "Tensor? noise, Tensor? bias, Tensor? next_style, Tensor(a!) y, bool nhwc, str activation, float slope, "
        "float gain, float clamp) -> ()");
  m.def("native_separable_conv2d_backward(Tensor gy, Tensor y, Tensor x, Tensor? haar_style, Tensor? depthwise, "
        "Tensor pointwise, Tensor style, Tensor(a!)? gx, Tensor(b!)? ghaar_style, Tensor(c!)? gdepthwise, "
        "Tensor(d!)? gpointwise, Tensor(e!)? gstyle, Tensor(f!)? gnoise, Tensor(g!)? gbias, Tensor(h!)? g, "
        "Tensor(i!)? t, bool nhwc, str activation, float slope, float gain, float clamp) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CPU, m) {
  m.impl("native_separable_conv2d", TORCH_BOX(&forward));
  m.impl("native_separable_conv2d_backward", TORCH_BOX(&backward));
}

STABLE_TORCH_LIBRARY_IMPL(guide_fast, CUDA, m) {
  m.impl("native_separable_conv2d", TORCH_BOX(&forward));
  m.impl("native_separable_conv2d_backward", TORCH_BOX(&backward));
}
