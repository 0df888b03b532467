"""Only what pyproject.toml cannot say: configs/ is installed as the package ftp_cl.configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["ftp_cl", "ftp_cl.*"]), "ftp_cl.configs"],
    package_dir={"ftp_cl.configs": "configs"},
    package_data={
        "ftp_cl": ["py.typed"],
        "ftp_cl.benchmarks": ["data/*"],
        "ftp_cl.configs": ["**/*.yaml"],
        "ftp_cl.study": ["templates/*"],
    },
)
