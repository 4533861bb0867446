import pickle
import sys

import numpy as np
import pytest

from monai_flowssn.data.safe_pickle import load_arrays

CONTENT = {
    "a": {"image": np.linspace(0, 1, 6).reshape(2, 3), "masks": [np.eye(2, dtype=np.uint8)] * 4, "series_uid": "1.2"},
    "b": (1, 2.5, None, True, b"bytes", {3, 4}, np.float32(0.5), np.asfortranarray(np.arange(6.0).reshape(2, 3))),
}


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_arrays_and_plain_containers_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "data.pickle"
    path.write_bytes(pickle.dumps(CONTENT, protocol=protocol))
    loaded = load_arrays(path)
    np.testing.assert_array_equal(loaded["a"]["image"], CONTENT["a"]["image"])
    assert loaded["a"]["masks"][3].dtype == np.uint8
    assert loaded["a"]["series_uid"] == "1.2"
    assert loaded["b"][:5] == CONTENT["b"][:5]
    np.testing.assert_array_equal(loaded["b"][-1], CONTENT["b"][-1])


@pytest.mark.parametrize(("old", "new"), [(b"numpy.core", b"numpy._core"), (b"numpy._core", b"numpy.core")])
def test_reads_pickles_of_numpy_1_and_2(tmp_path, old, new):
    content = pickle.dumps(np.arange(4), protocol=2).replace(old, new)
    (tmp_path / "data.pickle").write_bytes(content)
    np.testing.assert_array_equal(load_arrays(tmp_path / "data.pickle"), np.arange(4))


def test_reads_a_pickle_of_python_2(tmp_path):
    # what Python 2.7 with NumPy 1.x writes for {'a': np.array([1, 2], dtype='u1')}, protocol 2
    content = (
        b"\x80\x02}q\x00U\x01acnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85q\x03U\x01bq\x04"
        b"\x87q\x05Rq\x06(K\x01K\x02\x85q\x07cnumpy\ndtype\nq\x08U\x02u1q\tK\x00K\x01\x87q\nRq\x0b(K\x03U\x01|q\x0cNNNJ"
        b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\rb\x89U\x02\x01\x02q\x0etq\x0fbs."
    )
    (tmp_path / "data.pickle").write_bytes(content)
    np.testing.assert_array_equal(load_arrays(tmp_path / "data.pickle")["a"], np.array([1, 2], dtype=np.uint8))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_refuses_code_by_name_and_does_not_run_it(tmp_path, protocol):
    target, path = tmp_path / "payload_ran", tmp_path / "data.pickle"
    path.write_bytes(pickle.dumps({"a": Payload(target)}, protocol=protocol))
    with pytest.raises(ValueError, match=r"data\.pickle.*(io|__builtin__|builtins)\.open"):
        load_arrays(path)
    assert not target.exists()


@pytest.mark.parametrize("name", [b"cos\nsystem\n", b"c__builtin__\neval\n", b"cnumpy.core.multiarray\nfromstring\n"])
def test_refuses_other_globals(tmp_path, name):
    (tmp_path / "data.pickle").write_bytes(name + b"(S'1'\ntR.")
    module, function = name[1:].decode().split()
    with pytest.raises(ValueError, match=f"{module}.{function}"):
        load_arrays(tmp_path / "data.pickle")


def test_refuses_arrays_made_over_raw_memory(tmp_path):
    class Fake:
        def __reduce__(self):
            return (np.ndarray, ((1,), np.dtype("O"), b"12345678"))

    (tmp_path / "data.pickle").write_bytes(pickle.dumps(Fake()))
    with pytest.raises(ValueError):
        load_arrays(tmp_path / "data.pickle")


def test_refuses_a_codec_other_than_latin1(tmp_path):
    (tmp_path / "data.pickle").write_bytes(b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.")
    with pytest.raises(ValueError, match="rot13"):
        load_arrays(tmp_path / "data.pickle")


def test_an_object_array_cannot_bring_code_in(tmp_path):
    target, path = tmp_path / "payload_ran", tmp_path / "data.pickle"
    path.write_bytes(pickle.dumps(np.array([Payload(target)], dtype=object)))
    with pytest.raises(ValueError, match="open"):
        load_arrays(path)
    assert not target.exists()


def test_names_a_truncated_pickle(tmp_path):
    content = pickle.dumps(np.arange(1000))
    (tmp_path / "data.pickle").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"data\.pickle"):
        load_arrays(tmp_path / "data.pickle")


def test_does_not_import_what_it_refuses(tmp_path):
    sys.modules.pop("this", None)
    (tmp_path / "data.pickle").write_bytes(b"cthis\ns\n.")
    with pytest.raises(ValueError, match=r"this\.s"):
        load_arrays(tmp_path / "data.pickle")
    assert "this" not in sys.modules
