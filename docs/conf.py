"""How Sphinx builds the documentation."""

import django
from django.conf import settings

import djwebhooks

# autodoc imports the models, and they want a project around them.
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "djwebhooks"],
    DJWEBHOOKS_ENGINE="djwebhooks.engines.database.DatabaseEngine",
    USE_TZ=True,
)
django.setup()

project = "djwebhooks"
author = "djwebhooks contributors"
project_copyright = author
release = version = djwebhooks.__version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# Names of Python and Django are not looked up: the build needs no network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!djwebhooks\b|DJWEBHOOKS_).*"),
    ("py:.*", r"djwebhooks\.decorators\.(Hook|P|R_co)"),
    ("py:.*", r"djwebhooks\.adoption\.packages\.Package"),
]

html_theme = "furo"
html_title = f"djwebhooks {release}"
html_static_path = ["static"]
html_css_files = ["wrap.css"]
