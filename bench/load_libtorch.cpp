// Only loads libtorch_cpu: the floor for the start-up time of any program on LibTorch.
#include <ATen/Parallel.h>

int main() { return at::get_num_threads() > 0 ? 0 : 1; }
