// The verbs of the command line. Each parses its own argv (argv[0] is the verb) and returns an exit
// status or throws Error.
#pragma once

namespace ringlet::app {

int cmd_bench(int argc, char** argv);
int cmd_control(int argc, char** argv);
int cmd_control_run(int argc, char** argv);
int cmd_convert(int argc, char** argv);
int cmd_doctor(int argc, char** argv);
int cmd_eval(int argc, char** argv);
int cmd_extract(int argc, char** argv);
int cmd_generate(int argc, char** argv);
int cmd_inspect(int argc, char** argv);
int cmd_merge(int argc, char** argv);
int cmd_train(int argc, char** argv);
int cmd_tune(int argc, char** argv);

}  // namespace ringlet::app
