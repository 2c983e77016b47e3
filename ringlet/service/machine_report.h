// What this machine is and can do, for `ringlet doctor` and for programs that ask before they work.
#pragma once

#include "ringlet/core/json.h"

namespace ringlet::service {

struct MachineReportOptions {
  bool measure = true;             ///< speeds, which takes half a second
  bool automatic_threads = false;  ///< nobody has chosen the number of threads
};

/// {"ringlet", "libtorch", "opencv", "cpu": {"name", "cores", "threads", "thread_choice",
/// "busy_processors", "features"}, "memory": {"total_bytes", "available_bytes"}, "cuda":
/// {"devices", "reason"}, "mpi": {"present"}, "problems": [{"what", "fix"}]} (options between back
/// quotes), and when measured "matmul_gflops": {"fp32", "bf16"} and "auto": {"device",
/// "precision"}.
Json machine_report(const MachineReportOptions& options);

}  // namespace ringlet::service
