// Pages of mapped weight files: they count as this process's memory from the first look at them
// until they are given back.
#pragma once

#include <cstddef>

namespace ringlet::io {

/// Whether the address lies in a file that SafetensorsFile has mapped.
bool is_mapped(const void* address);

/// Gives back the pages that lie wholly in this part of a mapped file; the next look reads them
/// again, mostly from the system's cache. Nobody may have written to them. Does nothing for other
/// memory.
void give_back_pages(const void* begin, std::size_t bytes);

}  // namespace ringlet::io
