// SHA-256 of bytes and files.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace ringlet {

/// Incremental SHA-256 (FIPS 180-4, through libcrypto).
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  Sha256& update(std::span<const std::byte> bytes);
  std::string hex();  ///< 64 lower-case digits; ends the computation

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

/// Throws Error(not_found | io).
std::string sha256_file(const std::filesystem::path& path);

std::string sha256_text(std::string_view text);

/// The first 16 digits of a hash: enough to tell files apart where people read it.
std::string short_hash(const std::string& hash);

}  // namespace ringlet
