// The device: memory, streams, events, and what the host device says of itself.
#include <cstring>

#include "base/error.hpp"
#include "compute/arena.hpp"
#include "compute/host/cpu_features.hpp"
#include "compute/host/host_device.hpp"
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

BOOST_AUTO_TEST_SUITE(device)

BOOST_DATA_TEST_CASE(memory_is_aligned_and_counted, data::make(machines()), machine) {
  Device& device = *machine.get().device;
  const std::size_t before = device.memory_in_use();
  {
    const DeviceMemory small = device.allocate(1), large = device.allocate(40 << 20);
    BOOST_CHECK_EQUAL(reinterpret_cast<std::uintptr_t>(small.get()) % 256, 0u);
    BOOST_CHECK_EQUAL(reinterpret_cast<std::uintptr_t>(large.get()) % 256, 0u);
    // A GPU may put the small one into a page that it has taken already.
    BOOST_CHECK_GE(device.memory_in_use(), before + (40 << 20));
  }
  BOOST_CHECK_EQUAL(device.memory_in_use(), before);
  BOOST_CHECK_GT(device.memory_bytes(), std::size_t{1} << 20);
  BOOST_CHECK(!device.name().empty());
  BOOST_CHECK(!device.peak_source().empty());
}

BOOST_DATA_TEST_CASE(too_much_memory_is_an_error, data::make(machines()), machine) {
  BOOST_CHECK_THROW(static_cast<void>(machine.get().device->allocate(std::size_t{1} << 60)), Error);
  BOOST_CHECK_THROW(static_cast<void>(machine.get().device->allocate(~std::size_t{0})), Error);
}

BOOST_DATA_TEST_CASE(an_arena_hands_out_device_memory, data::make(machines()), machine) {
  Arena arena(machine.get().device->allocate(1024), 1024);
  const Tensor first = arena.take(DType::bf16, {3, 5}), second = arena.take(DType::fp32, {64});
  BOOST_CHECK_EQUAL(static_cast<std::byte*>(second.data()) - static_cast<std::byte*>(first.data()), 256);
  BOOST_CHECK_THROW(arena.take(DType::fp32, {1024}), ContractViolation);
}

BOOST_DATA_TEST_CASE(events_tell_time_in_order, data::make(machines()), machine) {
  Machine& m = machine.get();
  const auto first = m.device->create_event(), second = m.device->create_event();
  m.stream->record(*first);
  const Buffer work(m, DType::fp32, {1000, 100});
  m.kernels().fill_zero(work, *m.stream);
  m.stream->wait(*first);
  m.stream->record(*second);
  m.stream->synchronize();
  BOOST_CHECK_GT(m.device->elapsed_seconds(*first, *second), 0);
  BOOST_CHECK_LT(m.device->elapsed_seconds(*first, *second), 10);
  BOOST_CHECK_LT(m.device->elapsed_seconds(*second, *first), 0);
}

BOOST_AUTO_TEST_CASE(the_host_device_refuses_bad_thread_counts) {
  for (const int threads : {-1, 0, 257}) BOOST_CHECK_THROW(make_host_device(threads), ConfigurationError);
}

BOOST_AUTO_TEST_CASE(the_host_device_assumes_no_peak) {
  const auto cpu = make_host_device(1);
  BOOST_CHECK_EQUAL(cpu->kind(), "cpu");
  BOOST_CHECK(!cpu->peak_flops(DType::fp32) && !cpu->peak_flops(DType::bf16));
}

BOOST_AUTO_TEST_CASE(an_event_never_recorded_has_no_time) {
  const auto cpu = make_host_device(1);
  const auto event = cpu->create_event();
  BOOST_CHECK_THROW(cpu->elapsed_seconds(*event, *event), ContractViolation);
}

BOOST_AUTO_TEST_CASE(a_missing_instruction_set_is_named) {
  const std::string_view needed[] = {"no-such-instructions"};
  BOOST_CHECK_EXCEPTION(host::require_features(needed), ConfigurationError,
                        [](const ConfigurationError& error) {
                          return std::strstr(error.what(), "no-such-instructions") &&
                                 error.status() == ExitStatus::configuration;
                        });
  BOOST_CHECK_NO_THROW(host::require_features(host::compiled_features));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
