// A training run with its settings in code: start it with mpirun, a multiple of tp_size * pp_size processes.
#include <llama3d/llama3d.hpp>

int main(int argc, char** argv) {
  llama3d::TrainSettings settings;
  settings.model = "llama3-tiny";
  settings.data = argc > 1 ? argv[1] : "tokens.h5";
  settings.output_dir = argc > 2 ? argv[2] : "runs/example";
  settings.tp_size = 2;
  settings.pp_size = 2;
  settings.micro_batch_size = 2;
  settings.global_batch_size = 8;
  settings.seq_length = 64;
  settings.steps = 10;
  settings.learning_rate = 3e-3;
  settings.min_learning_rate = 3e-4;
  return llama3d::launch_training(argc, argv, settings);
}
