#include "seqboat/base/error.h"

namespace seqboat {

int exit_code(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::kFailed:
      return 1;
    case ErrorKind::kUsage:
      return 2;
    case ErrorKind::kConfig:
      return 3;
    case ErrorKind::kData:
      return 4;
    case ErrorKind::kModel:
      return 5;
    case ErrorKind::kDiverged:
      return 6;
    case ErrorKind::kResource:
      return 7;
    case ErrorKind::kNetwork:
      return 8;
  }
  return 1;
}

}  // namespace seqboat
