// torch.ops.guide_fast.native_separable_conv2d*: outputs are allocated by the caller.
#include "guide_fast/separable_conv2d.h"

#include "operands.h"

namespace {

using namespace gf::torch_binding;

float* floats(const OptionalTensor& t) { return static_cast<float*>(data(t)); }

// Sizes of a layer, from its output and the pointwise weight.
struct Layer {
  int64_t n, inputs, outputs, h, w;

  Layer(const Operands& operands, const Tensor& y, const Tensor& pointwise) {
    operands.rank("y", y, 4);
    operands.rank("pointwise", pointwise, 4);
    n = y.size(0), inputs = pointwise.size(1), outputs = y.size(1), h = y.size(2), w = y.size(3);
  }

  // What forward and backward take alike.
  void check(const Operands& operands, const Tensor& x, const OptionalTensor& haar_style,
             const OptionalTensor& depthwise, const Tensor& pointwise, const Tensor& style, const Tensor& y,
             Order order) const {
    const ScalarType type = operands.type();
    if (haar_style.has_value()) {
      operands.want(h % 2 == 0 && w % 2 == 0, "y has shape ", list_of(y.sizes()), "; with haar_style both sides are even");
      operands.tensor("haar_style", haar_style, {n, 4 * inputs}, type);
      operands.tensor("x", x, {n, 4 * inputs, h / 2, w / 2}, type, order);
    } else {
      operands.tensor("x", x, {n, inputs, h, w}, type, order);
    }
    operands.tensor("depthwise", depthwise, {inputs, 1, 3, 3}, type);
    operands.tensor("pointwise", pointwise, {outputs, inputs, 1, 1}, type);
    operands.tensor("style", style, {n, inputs}, type);
    operands.tensor("y", y, {n, outputs, h, w}, type, order);
  }

  // [N or 1, 1, H, W]
  void check_noise(const Operands& operands, const char* name, const OptionalTensor& noise, ScalarType type) const {
    if (!noise.has_value()) return;
    operands.rank(name, *noise, 4);
    operands.tensor(name, noise, {noise->size(0) == 1 ? 1 : n, 1, h, w}, type);
  }
};

void forward(Tensor x, OptionalTensor haar_style, OptionalTensor depthwise, Tensor pointwise, Tensor style,
             OptionalTensor noise, OptionalTensor bias, OptionalTensor next_style, Tensor y, bool nhwc,
             std::string activation, double slope, double gain, double clamp) {
  const Operands operands("native_separable_conv2d", "x", x);
  const Layer layer(operands, y, pointwise);
  layer.check(operands, x, haar_style, depthwise, pointwise, style, y, order_of(nhwc));
  layer.check_noise(operands, "noise", noise, operands.type());
  operands.tensor("bias", bias, {layer.outputs}, operands.type());
  operands.tensor("next_style", next_style, {layer.n, layer.outputs}, operands.type());
  const gf_separable_conv2d a{operands.dtype(), nhwc, layer.n, layer.inputs, layer.outputs, layer.h, layer.w,
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
  const Operands operands("native_separable_conv2d_backward", "x", x);
  const Layer layer(operands, y, pointwise);
  const Order order = order_of(nhwc);
  const int64_t n = layer.n, inputs = layer.inputs, outputs = layer.outputs, h = layer.h, w = layer.w;
  layer.check(operands, x, haar_style, depthwise, pointwise, style, y, order);
  layer.check_noise(operands, "gnoise", gnoise, ScalarType::Float);
  operands.tensor("gy", gy, {n, outputs, h, w}, operands.type(), order);
  operands.tensor("gx", gx, haar_style.has_value() ? std::initializer_list<int64_t>{n, 4 * inputs, h / 2, w / 2}
                                                   : std::initializer_list<int64_t>{n, inputs, h, w},
                  operands.type(), order);
  operands.tensor("ghaar_style", ghaar_style, {n, 4 * inputs}, ScalarType::Float);
  operands.tensor("gdepthwise", gdepthwise, {inputs, 1, 3, 3}, ScalarType::Float);
  operands.tensor("gpointwise", gpointwise, {outputs, inputs, 1, 1}, ScalarType::Float);
  operands.tensor("gstyle", gstyle, {n, inputs}, ScalarType::Float);
  operands.tensor("gbias", gbias, {outputs}, ScalarType::Float);
  operands.tensor("g", g, {n, outputs, h, w}, operands.type(), order);
  operands.tensor("t", t, {n, inputs, h, w}, operands.type(), order);
  const gf_separable_conv2d_backward a{operands.dtype(), nhwc, n, inputs, outputs, h, w,
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
