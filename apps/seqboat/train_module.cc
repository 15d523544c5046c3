// The module with the verbs that need LibTorch: hands over to the training library and translates LibTorch's errors.
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "seqboat/base/error.h"
#include "seqboat/data_audio/sound_file.h"
#include "seqboat/train/process.h"
#include "verbs.h"

namespace {

// LibTorch reports a failed allocation as an ordinary error of its own type; its text alone tells.
template <class Call>
int translated(Call&& call) {
  try {
    return std::forward<Call>(call)();
  } catch (const seqboat::Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    const std::string what = error.what();
    const std::string first_line = what.substr(0, what.find('\n'));
    if (what.find("not enough memory") != std::string::npos || what.find("out of memory") != std::string::npos) {
      throw seqboat::Error(seqboat::ErrorKind::kResource, first_line);
    }
    throw seqboat::Error(seqboat::ErrorKind::kFailed, first_line);
  }
}

// The training library reads sound files by what the program links for it.
template <class Request>
Request with_sound(Request request) {
  request.sound = seqboat::data_audio::sound_tools();
  return request;
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) const char* seqboat_verbs_version() {
  return SEQBOAT_VERSION;
}

__attribute__((visibility("default"))) void seqboat_describe_torch(nlohmann::ordered_json* json) {
  *json = seqboat::train::torch_json();
}

__attribute__((visibility("default"))) int seqboat_run_train(const seqboat::train::TrainRequest* request, seqboat::Reporter* reporter) {
  return translated([&] { return seqboat::train::run_train(with_sound(*request), *reporter); });
}

__attribute__((visibility("default"))) int seqboat_run_eval(const seqboat::train::EvalRequest* request, seqboat::Reporter* reporter) {
  return translated([&] { return seqboat::train::run_eval(with_sound(*request), *reporter); });
}

__attribute__((visibility("default"))) int seqboat_run_bench(const seqboat::train::BenchRequest* request, seqboat::Reporter* reporter) {
  return translated([&] { return seqboat::train::run_bench(with_sound(*request), *reporter); });
}
}
