#include "ringlet/adapt/build.h"

#include <algorithm>
#include <map>
#include <utility>

#include "ringlet/adapt/registry.h"
#include "ringlet/core/error.h"

namespace ringlet::adapt {

void SharedContext::include(const LayerShape& shape) {
  widest.out = std::max(widest.out, shape.out);
  widest.in = std::max(widest.in, shape.patch());
}

std::shared_ptr<TransformResidual> build_adapter(const Method& method, const nn::Layer& layer,
                                                 FactorTable& factors, const Random& random,
                                                 const std::string& name, SharedContext& shared) {
  const LayerShape shape = LayerShape::of(layer.shape());
  Parts parts;
  std::map<std::string, int> repeats;
  for (const PartSpec& part : method.parts) {
    const int before = repeats[part.name]++;
    const std::string stream = name + "." + part.name + (before > 0 ? std::to_string(before) : "");
    const BuildContext context{shape,
                               layer,
                               layer.bias().defined(),
                               factors,
                               random.stream(stream),
                               shared.tensors,
                               shared.widest,
                               shared.load};
    try {
      find_part(part.name).build(part, context, parts);
    } catch (const Error& error) {
      throw Error(error.code(), name, error.where() + " " + error.message(), error.hint());
    }
  }
  return std::make_shared<TransformResidual>(shape, std::move(parts), method);
}

std::shared_ptr<TransformResidual> build_adapter(const Method& method, const nn::Layer& layer,
                                                 FactorTable& factors, const Random& random,
                                                 const std::string& name) {
  SharedContext alone;
  alone.include(LayerShape::of(layer.shape()));
  return build_adapter(method, layer, factors, random, name, alone);
}

std::int64_t parameter_count(const Method& method, const LayerShape& shape, FactorTable& factors) {
  std::int64_t count = 0;
  for (const PartSpec& part : method.parts)
    count += find_part(part.name).parameter_count(part, shape, factors);
  return count;
}

}  // namespace ringlet::adapt
