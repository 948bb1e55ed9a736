// Which buffer a transfer or computation gets, and what it waits for.
#include "pipeline/buffer_pool.hpp"

#include <boost/test/unit_test.hpp>
#include <vector>

#include "base/error.hpp"
#include "support/immediate_stream.hpp"

using namespace llama3d;

namespace {

/// Notes that it was waited for.
class NotedWork final : public Work {
 public:
  NotedWork(std::vector<int>& waited, int name) : waited_(&waited), name_(name) {}
  void wait(Stream&) override { waited_->push_back(name_); }

 private:
  std::vector<int>* waited_;
  int name_;
};

struct Pool {
  std::vector<int> waited;
  test::ImmediateStream stream;
  BufferPool pool;

  explicit Pool(std::size_t buffers) : pool(std::vector<Tensor>(buffers)) {}
  SharedWorkHandle transfer(int name) {
    return std::make_shared<SharedWork>(std::make_unique<NotedWork>(waited, name));
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(buffer_pool)

BOOST_AUTO_TEST_CASE(every_buffer_is_given_once) {
  Pool p(3);
  std::vector<bool> given(3, false);
  for (int i = 0; i < 3; ++i) {
    const int index = p.pool.acquire(p.stream);
    BOOST_TEST(!given.at(static_cast<std::size_t>(index)));
    given[static_cast<std::size_t>(index)] = true;
  }
  BOOST_TEST(p.pool.in_use() == 3);
  BOOST_CHECK_THROW(p.pool.acquire(p.stream), ContractViolation);
  p.pool.release(1);
  BOOST_TEST(p.pool.acquire(p.stream) == 1);
  BOOST_TEST(p.waited.empty());
}

BOOST_AUTO_TEST_CASE(a_buffer_without_a_transfer_comes_first) {
  Pool p(2);
  const int sent = p.pool.acquire(p.stream), other = p.pool.acquire(p.stream);
  p.pool.release_after(sent, p.transfer(7));
  p.pool.release(other);
  BOOST_TEST(p.pool.acquire(p.stream) == other);
  BOOST_TEST(p.waited.empty());
}

BOOST_AUTO_TEST_CASE(the_transfer_that_started_first_is_waited_for) {
  Pool p(3);
  for (int i = 0; i < 3; ++i) p.pool.acquire(p.stream);
  for (const int index : {2, 0, 1}) p.pool.release_after(index, p.transfer(index));
  for (const int expected : {2, 0, 1}) BOOST_TEST(p.pool.acquire(p.stream) == expected);
  BOOST_TEST(p.waited == (std::vector<int>{2, 0, 1}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(draining_waits_for_each_transfer_once) {
  Pool p(3);
  for (int i = 0; i < 3; ++i) p.pool.acquire(p.stream);
  const auto shared = p.transfer(5);
  p.pool.release_after(0, shared);
  p.pool.release_after(1, shared);
  p.pool.release_after(2, p.transfer(6));
  p.pool.drain(p.stream);
  BOOST_TEST(p.waited.size() == 2u);
  p.pool.drain(p.stream);
  BOOST_TEST(p.waited.size() == 2u);
  BOOST_TEST(p.pool.in_use() == 0);
}

BOOST_AUTO_TEST_SUITE_END()
