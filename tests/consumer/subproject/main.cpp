// A program of another project that is built together with ringlet's lowest layer.
#include <cstdio>

#include "ringlet/core/sha256.h"
#include "ringlet/core/version.h"

int main() {
  std::printf("ringlet %s: %s\n", ringlet::kVersion, ringlet::sha256_text("abc").c_str());
}
