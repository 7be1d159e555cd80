"""What pyproject.toml cannot say: a wheel has files of the repository in another place. The repository has each once."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DEMO = ("experiments/demo.toml", "benches/mzm_awg_scope.toml")  # of `python -m hil.demo`; in a wheel below hil/demo/


class BuildWithDemo(build_py):
    """Copies the packages, and the files of the demo."""

    def run(self) -> None:
        """Copy both."""
        super().run()
        for source, target in self._demo():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target, preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return every file that `run` writes."""
        return [*super().get_outputs(include_bytecode), *(target for _, target in self._demo())]

    def _demo(self) -> list[tuple[str, str]]:
        """(source, target); none for an editable installation, which finds them in the repository."""
        return [] if self.editable_mode else [(file, str(Path(self.build_lib, "hil", "demo", file))) for file in DEMO]


setup(cmdclass={"build_py": BuildWithDemo})
