// A network of one's own, adapted: choose layers, insert adapters, train them, keep the rest
// frozen.

#include <cstdio>

#include <ATen/ATen.h>

#include "ringlet/adapt/method_text.h"
#include "ringlet/adapt/set/adapter_set.h"
#include "ringlet/nn/weight_store.h"
#include "ringlet/train/trainer.h"

using namespace ringlet;
struct Perceptron {
  explicit Perceptron(const nn::WeightSource& source)
      : first(source.at("first"), 64, 128), second(source.at("second"), 128, 10) {}
  at::Tensor forward(const at::Tensor& x) const { return second(at::gelu(first(x))); }
  nn::Linear first, second;
};
int main() {
  const nn::WeightSource source(std::make_shared<nn::RandomStore>(1));  // or FileStore::open(…)
  const Perceptron network(source);
  const nn::ModuleIndex index = source.finish();

  // 1. Choose the layers, by glob over "component.dotted.path".
  const auto targets = adapt::select_targets({{"net", &index}}, {.include = {"net.*"}});
  // 2. Insert the modules: into the layers' slots.
  auto adapters = adapt::AdapterSet::create(adapt::parse_method("trm(rank=2)+lora(rank=4)"),
                                            targets, adapt::FactorTable(), Random(1));
  adapters.attach();
  // 3. Train them …
  const at::Tensor x = at::sin(at::arange(64 * 256)).view({256, 64}), wanted = x.narrow(1, 0, 10);
  const auto forward = [&] { return (network.forward(x) - wanted).pow(2).mean(); };
  const auto loss = [&](auto) { return adapters.pass(forward); };
  train::TrainerOptions options;
  options.steps = 300;
  options.learning_rate.peak = 1e-2;
  train::Trainer(train::trainables(adapters), loss, options).run([](const train::StepResult& step) {
    if (step.step % 100 == 0) std::printf("step %3d  loss %.5f\n", int(step.step), step.loss);
    return true;
  });
  // 4. … and nothing else: without them the network is what it was, bit for bit.
  adapters.detach();
  const double before = loss(0).item<double>();
  // 5. Evaluate.
  adapters.attach();
  std::printf("loss %.5f without the adapters, %.5f with them\n", before, loss(0).item<double>());
}
