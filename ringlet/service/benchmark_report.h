// What `ringlet bench` has measured, as JSON, tables, plots and a page.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ringlet/core/json.h"
#include "ringlet/io/image.h"
#include "ringlet/service/benchmark.h"

namespace ringlet::service {

/// {"ringlet", "libtorch", "cpu", "cores", "threads", "device", "precision", "model",
/// "resolution", "batch_size", "speed": {"fp32_gflops", "bf16_gflops", "memory_gb_per_second"},
/// "rows": [{"name", "rows", "parameters", "seconds": [...], "peak_bytes", "kept_bytes",
/// "operations", "share_of_products", "kinds": {KIND: {"seconds", "operations", "bytes"}}}]}. The
/// share is that of the speed of products in the type that was computed in.
Json to_json(const BenchmarkRequest& request, const BenchmarkResult& result);

/// Rows of cells, the heads first.
using TextTable = std::vector<std::vector<std::string>>;

/// A row for each pass: seconds (median, least and most), beside the first method, peak and kept
/// memory, GFLOP/s and their share of the products' speed.
TextTable pass_table(const BenchmarkRequest& request, const BenchmarkResult& result);

/// A row for each pass: milliseconds by kind of layer, of the one that was looked at from inside.
TextTable kind_table(const BenchmarkResult& result);

io::Image draw_kinds(const BenchmarkResult& result);   ///< time by kind of layer
io::Image draw_memory(const BenchmarkResult& result);  ///< memory over a step
/// Operations per second against operations per byte, of kinds of layers, below what the machine
/// can do (Williams, Waterman and Patterson 2009, "Roofline").
io::Image draw_roofline(const BenchmarkRequest& request, const BenchmarkResult& result);

/// bench.json, bench.html, kinds.png, memory.png and roofline.png. Throws Error(io | no_space).
void write_benchmark(const BenchmarkRequest& request, const BenchmarkResult& result);

/// The page that write_benchmark writes.
std::filesystem::path benchmark_page(const BenchmarkRequest& request);

}  // namespace ringlet::service
