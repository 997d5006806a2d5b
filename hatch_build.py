"""The compiled wheel: the hot modules as C, by mypyc. Off by default; ``HATCH_BUILD_HOOK_ENABLE_CUSTOM=true`` turns it on.

See docs/how-to/compiled.md. The plugin hatch-mypyc does the same for packages of one source folder, and puts what it makes
among the sources; ours lie in several, and stay as they are.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
MADE = ROOT / "build" / "mypyc"

_DIRECT = ["-fvisibility=hidden", "-fno-plt"]
"""Calls go straight to what is called: unsaid, every function of the library could be replaced by another library's."""


class CompiledModules(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles the modules that ``pyproject.toml`` names, and puts the libraries beside the sources in the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a wheel is built; an editable one stays as it is."""
        if self.target_name != "wheel" or version == "editable":
            return
        shutil.rmtree(MADE, ignore_errors=True)
        sources = [str(folder) for folder in self.build_config.dev_mode_dirs]
        variables = {**os.environ, "MYPYPATH": os.pathsep.join(["stubs", *sources])}
        command = [sys.executable, __file__, *self.config["modules"]]
        subprocess.run(command, cwd=ROOT, env=variables, check=True)  # by itself: mypy remembers what it has read
        libraries = [path for path in (MADE / "lib").rglob("*") if path.suffix in (".so", ".pyd")]
        build_data["force_include"].update({str(path): str(path.relative_to(MADE / "lib")) for path in libraries})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compile_all(modules: list[str]) -> None:
    """Into ``build/mypyc/lib``: one library for all of them, for calls within it are C's own, and a small one for each."""
    from mypyc.build import mypycify
    from pybind11.setup_helpers import ParallelCompile
    from setuptools import Distribution

    said = ["--config-file=", "--explicit-package-bases", *modules]
    extensions = mypycify(said, opt_level="2", debug_level="0", multi_file=True, target_dir=str(MADE), group_name="pavane")
    if sys.platform == "linux":
        for extension in extensions:
            extension.extra_compile_args = [*extension.extra_compile_args, *_DIRECT]
    distribution = Distribution({"name": "pavane", "ext_modules": extensions})
    command: Any = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(MADE / "lib"), str(MADE / "temp")
    command.ensure_finalized()
    with ParallelCompile():  # setuptools has one file compiled after another
        command.run()


if __name__ == "__main__":
    compile_all(sys.argv[1:])
