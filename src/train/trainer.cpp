#include "train/trainer.hpp"

#include "train/signals.hpp"
#include "train/step_loop.hpp"

namespace llama3d {

TrainResult train(const TrainSettings& settings, Runtime& runtime) {
  // From the set-up on, which takes minutes where much is read.
  const SignalGuard signals;
  RunLog log(runtime.control.rank() == 0);
  PreparedRun run = prepare_run(settings, runtime, log);
  if (run.done())
    return {.status = ExitStatus::done, .steps = run.position.step, .loss = 0, .valid_loss = {}};
  return StepLoop(run, runtime, log).run();
}

}  // namespace llama3d
