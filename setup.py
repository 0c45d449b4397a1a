"""Build cellsync; everything but the packs is said in setup.cfg.

The packs stand in rules/, beside the package, where people look for them. A wheel has no such
place, so they are copied into it as cellsync/packs/. An editable install reads rules/ itself.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithPacks(build_py):
    """Copy rules/*.yaml into the package that is being built."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "cellsync" / "packs"
        target.mkdir(parents=True, exist_ok=True)
        for pack in sorted((ROOT / "rules").glob("*.yaml")):
            self.copy_file(str(pack), str(target / pack.name))


setup(cmdclass={"build_py": BuildWithPacks})
