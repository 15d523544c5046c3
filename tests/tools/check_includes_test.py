"""tools/check_includes finds each kind of breach, and lets pass what the arrows allow."""

import unittest

from tool_case import ToolTest


class CheckIncludesTest(ToolTest):
    tool = "check_includes"

    def test_arrows_that_are_allowed(self):
        for library, header in [
            ("kernels", "base/error.h"),
            ("config", "base/error.h"),
            ("runtime", "config/model_config.h"),
            ("ops", "kernels/gemm.h"),
            ("nn", "ops/ops.h"),
            ("nn", "config/model_config.h"),
            ("train", "data/dataset.h"),
            ("train", "kernels/simd.h"),
            ("data_audio", "data/sound.h"),
        ]:
            self.write(f"src/{library}/{header.replace('/', '_')}.cc", f'#include "seqboat/{header}"\n')
        self.write("apps/seqboat/main.cc", '#include <CLI/CLI.hpp>\n#include "seqboat/train/commands.h"\n#include "seqboat/base/error.h"\n')
        self.expect_clean()

    def test_arrows_against_which_nothing_may_go(self):
        for library, header in [
            ("base", "kernels/gemm.h"),
            ("kernels", "data/dataset.h"),
            ("data", "config/recipe.h"),
            ("config", "data/dataset.h"),
            ("trace", "nn/packed.h"),
            ("runtime", "ops/ops.h"),
            ("ops", "config/model_config.h"),
            ("ops", "nn/linear.h"),
            ("nn", "data/dataset.h"),
            ("nn", "train/commands.h"),
            ("train", "data_audio/sound_file.h"),
            ("data_audio", "config/recipe.h"),
        ]:
            with self.subTest(library=library, header=header):
                self.write(f"src/{library}/wrong.cc", f'#include <vector>\n#include "seqboat/{header}"\n')
                self.expect_fault(f"src/{library}/wrong.cc:2:", header)
                (self.root / f"src/{library}/wrong.cc").unlink()

    def test_public_headers_are_held_to_the_same(self):
        self.write("include/seqboat/data/dataset.h", '#include "seqboat/nn/packed.h"\n')
        self.expect_fault("include/seqboat/data/dataset.h:1:", "data may not include nn")

    def test_tests_see_what_their_library_sees(self):
        self.write("tests/unit/data/dataset_test.cc", '#include <gtest/gtest.h>\n#include "seqboat/data/dataset.h"\n#include "support/x.h"\n')
        self.expect_clean()
        self.write("tests/unit/data/dataset_test.cc", '#include "seqboat/train/commands.h"\n')
        self.expect_fault("tests/unit/data/dataset_test.cc:1:")

    def test_libtorch_stays_above_ops(self):
        self.write("src/ops/x.cc", "#include <ATen/ATen.h>\n")
        self.write("tests/unit/nn/x_test.cc", "#include <torch/torch.h>\n")
        self.write("apps/golden_check/x.cc", "#include <torch/torch.h>\n")
        self.expect_clean()
        for header in ("torch/torch.h", "ATen/core/Tensor.h", "c10/util/Exception.h"):
            for file in ("src/kernels/x.cc", "include/seqboat/data/x.h", "apps/seqboat/x.cc", "tests/unit/base/x.cc"):
                with self.subTest(header=header, file=file):
                    self.write(file, f"#include <{header}>\n")
                    self.expect_fault(f"{file}:1:", "LibTorch")
                    (self.root / file).unlink()

    def test_headers_that_promise_to_need_no_libtorch(self):
        header = "include/seqboat/train/commands.h"
        self.write(header, '#include "seqboat/config/recipe.h"\n#include "seqboat/base/reporter.h"\n')
        self.expect_clean()
        self.write(header, "#include <torch/torch.h>\n")
        self.expect_fault(f"{header}:1:", "LibTorch")
        self.write(header, '#include "seqboat/nn/model.h"\n')
        self.expect_fault(f"{header}:1:")

    def test_third_party_headers_stay_in_their_folders(self):
        self.write("src/kernels/cpu/x.cc", '#include "hwy/highway.h"\n')
        self.write("src/config/x.cc", "#include <toml++/toml.h>\n")
        self.expect_clean()
        self.write("src/data/x.cc", '#include "hwy/highway.h"\n')
        self.expect_fault("src/data/x.cc:1:", "Highway")
        self.write("src/data/x.cc", "#include <toml++/toml.h>\n")
        self.expect_fault("src/data/x.cc:1:", "toml++")
        self.write("src/data/x.cc", "#include <CLI/CLI.hpp>\n")
        self.expect_fault("src/data/x.cc:1:", "CLI11")

    def test_private_headers_stay_in_their_library(self):
        self.write("src/data/x.cc", '#include "data/listops_tree.h"\n')
        self.expect_clean()
        self.write("src/train/x.cc", '#include "data/listops_tree.h"\n')
        self.expect_fault("src/train/x.cc:1:", "private")

    def test_a_test_may_look_at_the_private_headers_of_what_it_tests(self):
        self.write("tests/reference/kernels/x_test.cc", '#include "../../../src/kernels/cpu/math-inl.h"\n')
        self.expect_clean()
        self.write("tests/reference/kernels/x_test.cc", '#include "../../../src/data/listops_tree.h"\n')
        self.expect_fault("tests/reference/kernels/x_test.cc:1:", "..")

    def test_what_tests_share(self):
        self.write("tests/support/guarded.h", '#include "seqboat/kernels/simd.h"\n')
        self.write("tests/support/torch_checks.h", '#include <torch/torch.h>\n#include "seqboat/nn/packed.h"\n')
        self.expect_clean()
        self.write("tests/support/guarded.h", '#include "seqboat/nn/packed.h"\n')
        self.expect_fault("tests/support/guarded.h:1:", "nn")

    def test_no_way_round(self):
        self.write("src/base/x.cc", '#include "../nn/packed.h"\n')
        self.expect_fault("src/base/x.cc:1:", "..")
        self.write("src/base/x.cc", '  #  include   "seqboat/nn/packed.h"  // spaces\n')
        self.expect_fault("src/base/x.cc:1:", "nn")
        self.write("src/base/x.cc", '#include "seqboat/extra/x.h"\n')
        self.expect_fault("src/base/x.cc:1:", "no library")

    def test_exit_codes(self):
        self.assertEqual(self.exit_code(), 1, "an empty tree is no success")
        self.write("src/base/x.cc", "#include <vector>\n")
        self.assertEqual(self.exit_code(), 0)
        self.write("src/base/x.cc", '#include "seqboat/nn/packed.h"\n')
        self.assertEqual(self.exit_code(), 1)


if __name__ == "__main__":
    unittest.main()
