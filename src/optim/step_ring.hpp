#pragma once
// How far the host may be ahead of the device.

#include <array>
#include <cstddef>
#include <cstdint>

namespace llama3d {

/// Optimizer steps that are queued on the device and not yet reported.
inline constexpr std::size_t kStepsUnderWay = 2;

/// One T for every step under way, and for as many reported ones before them as are still looked at.
template <class T, std::size_t Reported = 0>
class StepRing {
 public:
  T& operator[](std::int64_t step) { return items_[place(step)]; }
  const T& operator[](std::int64_t step) const { return items_[place(step)]; }
  auto begin() { return items_.begin(); }
  auto end() { return items_.end(); }

 private:
  static std::size_t place(std::int64_t step) {
    return static_cast<std::size_t>(step) % (kStepsUnderWay + Reported);
  }
  std::array<T, kStepsUnderWay + Reported> items_{};
};

}  // namespace llama3d
