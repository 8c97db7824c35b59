"""Stand-ins of modules, in a process that has not imported them yet."""

import subprocess
import sys
import textwrap


def run(text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_a_module_that_is_put_off_is_imported_when_something_of_it_is_used() -> None:
    said = run("""
        import sys
        from mekt.standin import put_off
        put_off("urllib.request")
        import urllib.request
        import urllib.request as before
        print("http.client" in sys.modules)
        from urllib.request import getproxies
        print("http.client" in sys.modules, hasattr(before, "nothing"), before.getproxies is getproxies)
        import urllib.request as after
        print(after is urllib.request, after.__spec__.name, after is not before)
    """)
    assert said.splitlines() == ["False", "True False True", "True urllib.request True"]


def test_a_module_that_is_there_stays() -> None:
    said = run("""
        import urllib.request
        from mekt.standin import put_off
        there = urllib.request
        put_off("urllib.request")
        import urllib.request
        print(urllib.request is there)
    """)
    assert said.splitlines() == ["True"]


def test_a_module_of_no_package_is_put_off_too() -> None:
    said = run("""
        import sys
        from mekt.standin import put_off
        put_off("uuid")
        import uuid
        print("_uuid" in sys.modules, uuid.UUID(int=0))
        print(sys.modules["uuid"].__spec__.name)
    """)
    assert said.splitlines() == ["False 00000000-0000-0000-0000-000000000000", "uuid"]
