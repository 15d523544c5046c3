"""libseqboat as others get it: what the library shows and asks for, and programs in C and C++ that are built from the installed package alone, by CMake and
by pkg-config, shared and static, also after the package was moved."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["SEQBOAT_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["SEQBOAT_BUILD_DIR"])
CC, CXX = os.environ.get("SEQBOAT_CC") or "cc", os.environ.get("SEQBOAT_CXX") or "c++"
C_FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def run(*words, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, **more)
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


class Embedded(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.here = pathlib.Path(cls.folder.name)
        cls.prefix = cls.here / "prefix"
        run("cmake", "--install", BUILD, "--prefix", cls.prefix, "--component", "embedded")
        cls.library = cls.prefix / "lib/libseqboat.so"
        program = cls.here / "random_model"
        run(CXX, "-std=c++20", SOURCE / "tests/install/random_model.cc", "-o", program, f"-I{cls.prefix}/include", f"-L{cls.prefix}/lib", "-lseqboat")
        cls.moved = {**os.environ, "LD_LIBRARY_PATH": str(cls.prefix / "lib")}
        cls.tokens, cls.real = cls.here / "tokens", cls.here / "real"
        for model in (cls.tokens, cls.real):
            model.mkdir()
            run(program, model, model.name, env=cls.moved)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def check_c_stream(self, program, env=None):
        state = self.here / "state"
        state.unlink(missing_ok=True)
        whole = run(program, self.tokens, input="to be or not to be", env=env)
        self.assertRegex(whole, r"(?m)^after 18: \d+\nahead:( \d+){16}\nlayer 0 attended at \d+ of 18$")
        # In two runs, with the state in a file between them: the same end.
        first = run(program, self.tokens, state, input="to be or ", env=env)
        self.assertIn("after 9:", first)
        self.assertEqual(run(program, self.tokens, state, input="not to be", env=env), whole)
        self.assertRegex(run(program, self.real, input="0.5 1\n-0.25 0.125\n", env=env), r"(?m)^after 2: [0-3]$")
        failed = subprocess.run([program, self.here / "none"], capture_output=True, text=True, env=env, timeout=60)
        self.assertEqual(failed.returncode, 5)
        self.assertIn("none", failed.stderr)

    def test_by_cmake(self):
        # With no other package in reach: what the component `runtime` asked for would not be found.
        nothing = [f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=ON" for name in ("nlohmann_json", "fmt", "Threads", "Python3", "Torch")]
        for example, language in (("c_stream", "C"), ("cpp_stream", "CXX")):
            compiler = CC if language == "C" else CXX
            run("cmake", "-S", SOURCE / "examples" / example, "-B", self.here / example, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={self.prefix}",
                f"-DCMAKE_{language}_COMPILER={compiler}", *nothing)
            run("cmake", "--build", self.here / example)
        self.check_c_stream(self.here / "c_stream/c_stream")
        self.check_c_stream(self.here / "c_stream/c_stream_static")
        self.assertNotIn("libseqboat", run("readelf", "-d", self.here / "c_stream/c_stream_static"))
        self.assertIn("the same logits", run(self.here / "cpp_stream/cpp_stream", self.tokens, "to be or not to be"))

    def test_by_pkg_config_after_a_move(self):
        if shutil.which("pkg-config") is None:
            self.skipTest("no pkg-config here")
        moved = self.here / "elsewhere/seqboat"
        shutil.copytree(self.prefix, moved, symlinks=True)
        env = {**os.environ, "PKG_CONFIG_PATH": str(moved / "lib/pkgconfig"), "LD_LIBRARY_PATH": str(moved / "lib")}
        flags = run("pkg-config", "--cflags", "--libs", "seqboat", env=env).split()
        self.assertTrue(all(str(self.prefix) not in flag for flag in flags), flags)
        run(CC, *C_FLAGS, SOURCE / "examples/c_stream/main.c", "-o", self.here / "by_pkg_config", *flags)
        self.check_c_stream(self.here / "by_pkg_config", env)

    def test_the_headers_example(self):
        header = (self.prefix / "include/seqboat.h").read_text()
        code = re.search(r"^///   #include <seqboat.h>\n(?:^///.*\n)+?^///   }\n", header, flags=re.MULTILINE).group(0)
        (self.here / "example.c").write_text(re.sub(r"(?m)^/// ? ?", "", code))
        run(CC, *C_FLAGS, self.here / "example.c", "-o", self.here / "example", f"-I{self.prefix}/include", f"-L{self.prefix}/lib", "-lseqboat")
        said = run(self.here / "example", self.tokens, input="to be", env=self.moved)
        self.assertRegex(said, r"^after 5 bytes: \d+\n$")
        # The page shows it, too.
        self.assertIn("#include <seqboat.h>", (SOURCE / "docs/EMBEDDING.md").read_text())

    def test_every_header_stands_alone(self):
        headers = sorted(path.relative_to(self.prefix / "include") for path in (self.prefix / "include").rglob("*.h"))
        self.assertGreater(len(headers), 5)
        for header in headers:
            (self.here / "alone.cc").write_text(f"#include <{header}>\n")
            run(CXX, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", self.here / "alone.cc", f"-I{self.prefix}/include")

    def test_what_the_library_shows(self):
        lines = run("nm", "--dynamic", "--defined-only", "--extern-only", "--demangle", self.library).splitlines()
        names = [line.split(maxsplit=2)[2] for line in lines]
        declared = set(re.findall(r"^SEQBOAT_API [\w* ]+?(\w+)\(", (SOURCE / "include/seqboat.h").read_text(), flags=re.MULTILINE))
        self.assertGreater(len(declared), 20)
        self.assertEqual({name for name in names if name.startswith("seqboat_")}, declared)
        ours = re.compile(r"seqboat_|seqboat::runtime::|(typeinfo|typeinfo name|vtable) for seqboat::Error$")
        self.assertEqual([name for name in names if not ours.match(name)], [])
        for function in ("load(", "forward(", "quantize(", "Runner::feed(", "State::save(", "Sampler::Sampler(", "Sampler::sample("):
            self.assertTrue(any(name.startswith(f"seqboat::runtime::{function}") for name in names), function)
        self.assertEqual([name for name in names if re.search(r"::(Impl|Engine|Team)\b.*\(", name.split("(")[0] + "(")], [])

    def test_what_the_library_asks_for(self):
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "--dynamic", "--wide", self.library))
        allowed = r"libstdc\+\+|libc\+\+|libgcc_s|libm|libc|libpthread|libatomic|ld-linux"
        self.assertEqual([name for name in needed if not re.match(rf"({allowed})[.-]", name)], [])
        self.assertIn("libseqboat.so.", run("readelf", "--dynamic", "--wide", self.library).split("SONAME")[1].splitlines()[0])

    def test_how_large_the_library_is(self):
        if os.environ.get("SEQBOAT_BUILD_TYPE") != "Release":
            self.skipTest("measured where it is optimised")
        stripped = self.here / "stripped.so"
        run("strip", "-o", stripped, self.library)
        self.assertLessEqual(stripped.stat().st_size, 2_000_000)


if __name__ == "__main__":
    unittest.main()
