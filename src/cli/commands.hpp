#pragma once
// The subcommands: each reads its own options and returns the exit status. argv[0] is the command's name.

namespace llama3d {

int train_command(int argc, char** argv);
int eval_command(int argc, char** argv);
int generate_command(int argc, char** argv);
int plan_command(int argc, char** argv);
int bench_command(int argc, char** argv);
int tokenize_command(int argc, char** argv);
int import_command(int argc, char** argv);
int export_command(int argc, char** argv);
int inspect_command(int argc, char** argv);

}  // namespace llama3d
