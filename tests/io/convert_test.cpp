#include "io/convert.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "io/posix_file.hpp"

using namespace llama3d;

BOOST_AUTO_TEST_SUITE(convert)

BOOST_AUTO_TEST_CASE(fp16_is_exact) {
  // Values from the definition of binary16: exponent bias 15, 10 bits of fraction.
  BOOST_TEST(io::float_of_fp16(0x3c00) == 1.0f);
  BOOST_TEST(io::float_of_fp16(0xc000) == -2.0f);
  BOOST_TEST(io::float_of_fp16(0x7bff) == 65504.0f);
  BOOST_TEST(io::float_of_fp16(0x0001) == std::ldexp(1.0f, -24));
  BOOST_TEST(io::float_of_fp16(0x83ff) == -std::ldexp(1023.0f, -24));
  BOOST_TEST(std::signbit(io::float_of_fp16(0x8000)));
  BOOST_TEST(io::float_of_fp16(0x7c00) == std::numeric_limits<float>::infinity());
  BOOST_TEST(std::isnan(io::float_of_fp16(0x7e00)));
}

BOOST_AUTO_TEST_CASE(narrowing_rounds_to_nearest_even) {
  // bf16 has 8 significant bits: 1 + 2^-8 lies half way between 1 and 1 + 2^-7 and goes to the even 1.
  const std::vector<float> from = {1.0f, 1.0f + 0x1p-8f, 1.0f + 0x3p-8f, -3.140625f};
  std::vector<bf16> to(from.size());
  io::convert_elements(from.data(), DType::fp32, to.data(), DType::bf16, from.size());
  BOOST_TEST(static_cast<float>(to[0]) == 1.0f);
  BOOST_TEST(static_cast<float>(to[1]) == 1.0f);
  BOOST_TEST(static_cast<float>(to[2]) == 1.0f + 0x4p-8f);
  BOOST_TEST(static_cast<float>(to[3]) == -3.140625f);
  std::vector<double> back(from.size());
  io::convert_elements(to.data(), DType::bf16, back.data(), DType::fp64, from.size());
  BOOST_TEST(back[3] == -3.140625);
}

BOOST_AUTO_TEST_CASE(integers_and_floats_do_not_mix) {
  std::int32_t from = 1;
  float to = 0;
  BOOST_CHECK_THROW(io::convert_elements(&from, DType::int32, &to, DType::fp32, 1), io::IoError);
  BOOST_CHECK_THROW(io::convert_elements(&to, DType::fp32, &from, DType::int32, 1), io::IoError);
}

BOOST_AUTO_TEST_SUITE_END()
