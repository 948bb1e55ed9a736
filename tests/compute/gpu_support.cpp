// Which GPUs are taken, seen without having the others.
#include <boost/test/unit_test.hpp>

#include "base/error.hpp"
#include "cuda/device/gpu_traits.hpp"
#include "support/error_message.hpp"

namespace llama3d::test {

BOOST_AUTO_TEST_SUITE(gpu_support)

BOOST_AUTO_TEST_CASE(a_gpu_before_ampere_is_refused_by_name) {
  cuda::GpuTraits turing;
  turing.architecture = 75;
  turing.name = "Tesla T4";
  BOOST_CHECK_EXCEPTION(
      cuda::require_supported(turing), ConfigurationError,
      says({"`device` cuda: Tesla T4 has compute capability 7.5, at least 8.0", "`device` cpu"}));
}

BOOST_AUTO_TEST_CASE(a_driver_that_is_too_old_is_told_by_version) {
  BOOST_CHECK_EQUAL(cuda::reason_against_driver(11080, 12040),
                    "the driver is for CUDA 11.8, this llama3d needs one for 12.4");
  BOOST_CHECK_EQUAL(cuda::reason_against_driver(0, 12040), "no NVIDIA driver is loaded");
}

BOOST_AUTO_TEST_CASE(gpus_from_ampere_on_are_taken) {
  for (const int architecture : {80, 86, 89, 90, 100}) {
    cuda::GpuTraits traits;
    traits.architecture = architecture;
    BOOST_CHECK_NO_THROW(cuda::require_supported(traits));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
