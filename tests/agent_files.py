"""Agent files as tests want them: saved, changed, with a payload in them."""

import base64
import json
import os
import zipfile

import cloudpickle


class Touch:
    """A pickle that creates a file when it is run."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def rewritten(source, target, data=None, members=None):
    """A copy of a zip with other entries in its JSON and other members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                content = json.dumps({**json.loads(content), **(data or {})})
            new.writestr(name, (members or {}).get(name, content))
    return target


def pickled(value, **twins):
    return {":type:": str(type(value)), ":serialized:": base64.b64encode(cloudpickle.dumps(value)).decode(), **twins}


def payload(trace):
    return {":serialized:": pickled(Touch(trace))[":serialized:"]}


def saved(model, folder, name="agent.zip"):
    model.save(folder / name)
    return folder / name
