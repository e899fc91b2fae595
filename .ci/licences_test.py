"""A check that cannot fail is worth nothing: what licences.py must refuse."""

import unittest

from licences import complaints_about, is_allowed

ALLOWED = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"}
RULES = {
    "licenses": {"allow": sorted(ALLOWED), "exceptions": [{"crate": "special", "allow": ["MPL-2.0"]}]},
    "bans": {"deny": [{"crate": "native-tls"}, {"crate": "openssl-sys", "wrappers": ["rdkafka-sys"]}]},
}


def package(name="crate", licence="MIT", source="registry+https://example.org/crates.io-index"):
    return {"name": name, "version": "1.0.0", "license": licence, "source": source}


class Expressions(unittest.TestCase):
    def test_one_choice_of_an_or_is_enough(self):
        self.assertTrue(is_allowed("GPL-3.0 OR MIT", ALLOWED))
        self.assertTrue(is_allowed("MIT/GPL-2.0", ALLOWED))

    def test_every_part_of_an_and_is_needed(self):
        self.assertTrue(is_allowed("MIT AND Apache-2.0", ALLOWED))
        self.assertFalse(is_allowed("MIT AND OpenSSL", ALLOWED))
        self.assertFalse(is_allowed("(MIT OR Apache-2.0) AND GPL-3.0", ALLOWED))
        self.assertTrue(is_allowed("GPL-3.0 AND GPL-2.0 OR MIT", ALLOWED))

    def test_an_exception_is_part_of_the_licence(self):
        self.assertTrue(is_allowed("Apache-2.0 WITH LLVM-exception", ALLOWED))
        self.assertFalse(is_allowed("MIT WITH Something-else", ALLOWED))

    def test_what_cannot_be_read_is_refused(self):
        for expression in ("", "MIT OR", "(MIT", "MIT MIT", "AND MIT", "MIT)"):
            self.assertFalse(is_allowed(expression, ALLOWED), expression)


class Packages(unittest.TestCase):
    def test_an_honest_list_passes(self):
        packages = [package(), package("ours", "Apache-2.0", None), package("special", "MPL-2.0")]
        self.assertEqual(complaints_about(packages, RULES, {}), [])

    def test_each_fault_is_found(self):
        faults = [
            package(licence="GPL-3.0"),
            package(licence=None),
            package(licence="MPL-2.0"),
            package(source="git+https://example.org/crate"),
            package(name="native-tls"),
        ]
        for fault in faults:
            self.assertEqual(len(complaints_about([package(), fault], RULES, {})), 1, fault)

    def test_a_banned_crate_may_come_through_its_wrappers_only(self):
        packages = [package(name="openssl-sys")]
        self.assertEqual(complaints_about(packages, RULES, {"openssl-sys": {"rdkafka-sys"}}), [])
        others = {"openssl-sys": {"rdkafka-sys", "reqwest"}}
        self.assertIn("for reqwest", complaints_about(packages, RULES, others)[0])


if __name__ == "__main__":
    unittest.main()
