"""Series from a DICOMweb archive and results into it: what is asked, what comes, every way to fail, and who sees a login."""

import shutil
import ssl
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import archives
import dicoms
from sparseseg import io
from sparseseg.cohort import dicomweb, web
from sparseseg.contract import memory
from sparseseg.contract.errors import InputError, ServerError, SparseSegError, TooLargeError
from sparseseg.contract.geometry import Geometry

SHAPE = (6, 16, 20)  # (K, J, I)
GEOMETRY = Geometry.from_axes(SHAPE, (0.75, 0.5, 2.5), (-7.25, 3.5, 100.125), dicoms.rotation(10, 20, 30).ravel())
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SECRET = "s3cret-Token"


def stored_values(seed=0):
    return np.random.default_rng(seed).integers(-1000, 1000, SHAPE, np.int16)


@pytest.fixture
def series(tmp_path):
    return dicoms.write_series(tmp_path / "series", stored_values(), GEOMETRY, shuffle=True)


@pytest.fixture
def archive(monkeypatch, tmp_path):
    monkeypatch.setattr(web, "PAUSES_S", (0.0, 0.0, 0.0))
    for name in (web.HOST, web.TOKEN, web.LOGIN, "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # with no netrc file
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with archives.running() as archive:
        yield archive


def retrieve(address, **options):
    """The voxels of a series, and where its files were meanwhile."""
    with dicomweb.at_hand((address,), **options) as (folder,):
        return io.read_volume(folder).array, folder


def refusal(address, error=SparseSegError):
    with pytest.raises(error) as caught:
        retrieve(address)
    return caught.value


# ---------------------------------------------------------------- retrieving


def test_a_series_is_read_as_from_a_folder_of_its_own_that_is_gone_afterwards(archive, series):
    address = archive.keep_all(series)
    with dicomweb.at_hand((address, "beside.nrrd")) as (folder, beside):
        assert beside == Path("beside.nrrd")
        assert sys.platform == "win32" or stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        volume, expected = io.read_volume(folder), io.read_volume(series[0].parent)
        assert np.array_equal(volume.array, expected.array)
        assert volume.geometry == expected.geometry
        assert volume.series.instance_uids == expected.series.instance_uids
        assert sorted(path.read_bytes() for path in folder.iterdir()) == sorted(path.read_bytes() for path in series)
    assert not folder.parent.exists()
    assert archive.retrievals() == 1


def test_the_folder_is_gone_after_a_failure_too(archive, series, tmp_path, monkeypatch):
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    address = archive.keep_all(series)
    archive.faults = ["cut"] * 4
    refusal(address)
    assert not list(place.iterdir())


@pytest.mark.parametrize("fault", ["500", "503", "429", "cut", "truncated", "one missing"])
def test_what_passes_is_tried_again_and_begins_anew(archive, series, fault):
    address = archive.keep_all(series)
    archive.faults = [fault, fault]
    array, _ = retrieve(address)
    assert array.shape == SHAPE
    assert archive.retrievals() == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("502", "could not answer (502 Bad Gateway), in 4 tries"),
        ("cut", "broke the connection off, in 4 tries"),
        ("truncated", "ended its answer in the middle, in 4 tries"),
        ("one missing", "sent 5 objects of the series and left out 1, in 4 tries"),
    ],
)
def test_what_does_not_pass_is_said(archive, series, fault, reason):
    address = archive.keep_all(series)
    archive.faults = [fault] * 4
    error = refusal(address, ServerError)
    assert reason in error.sentence
    assert "second run" in error.advice
    assert archive.retrievals() == 4


def test_a_server_that_says_nothing_is_not_waited_for(archive, series, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT_S", 0.2)
    address = archive.keep_all(series)
    archive.faults = ["silent"]
    assert retrieve(address)[0].shape == SHAPE
    archive.faults = ["silent"] * 4
    assert "did not answer for 0 s, in 4 tries" in refusal(address).sentence


def test_a_server_that_hardly_sends_is_left(archive, series, monkeypatch):
    monkeypatch.setattr(web, "_WINDOW_S", 0.1)
    address = archive.keep_all(series)
    archive.faults = ["dripping"] * 4
    assert "bytes in 0 s, in 4 tries" in refusal(address).sentence


def test_nobody_there_is_said(archive, series):
    address = archive.keep_all(series)
    nowhere = address.replace(archive.base, "http://localhost:9/dicom-web")
    assert "localhost:9 cannot be reached" in refusal(nowhere).sentence


def test_an_archive_that_cannot_list_objects_is_believed(archive, series):
    archive.searches_objects = False
    assert retrieve(archive.keep_all(series))[0].shape == SHAPE


@pytest.mark.parametrize(("fault", "reason"), [("html", "sends text/html in place of DICOM objects"), ("packed", "packs its answers")])
def test_what_no_second_try_mends_is_said_at_once(archive, series, fault, reason):
    address = archive.keep_all(series)
    archive.faults = [fault]
    assert reason in refusal(address).sentence
    assert archive.retrievals() == 1


def test_an_object_of_another_series_is_refused(archive, series):
    address = archive.keep_all(series)
    uid = next(iter(archive.objects))
    other = dicoms.make_slices(stored_values(1), GEOMETRY, series="another")[0]
    archive.objects[uid] = dicoms.save(other, series[0].parent.parent / "other.dcm").read_bytes()
    assert "sends an object of another series" in refusal(address).sentence


def test_a_damaged_object_is_refused(archive, series):
    address = archive.keep_all(series)
    uid = next(iter(archive.objects))
    archive.objects[uid] = b"\0" * 500
    assert "is no DICOM file, or it is damaged" in refusal(address).sentence


def test_a_series_that_is_not_there_is_said(archive, series):
    address = archive.keep_all(series)
    assert "has nothing of that address (404 Not Found)" in refusal(address[:-3] + "999").sentence


@pytest.mark.parametrize(
    "address",
    [
        "https://host/dicom-web",
        "https://host/studies/1.2/series/",
        "https://host/studies/1.2/series/1.2/instances/3",
        "https://h/studies/a/series/1.2",
    ],
)
def test_an_address_of_anything_else_is_refused(address):
    assert "is no address of a series" in refusal(address).sentence


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://archive.example.org/dicom-web", "over http, where everybody on the way can read"),
        ("http://localhost.example.org/dicom-web", "over http"),
        ("http://127.0.0.1.example.org/dicom-web", "over http"),
        ("https://user:secret@archive.example.org/dicom-web", "holds a user or password"),
        ("https://archive.example.org/dicom-web?key=secret", "has more behind its path"),
        ("ftp://archive.example.org/", "is no address of a DICOMweb server"),
        ("https://archive.example.org:port/", "is no address of a DICOMweb server"),
        ("https://[::1/", "is no address of a DICOMweb server"),
        ("https:///dicom-web", "is no address of a DICOMweb server"),
        ("https://archive.example.org/a b\r\nX: y", "is no address of a DICOMweb server"),
    ],
)
def test_an_address_that_nothing_may_be_sent_to_is_refused(address, reason):
    with pytest.raises(InputError, match=reason) as caught:
        web.Server.at(address)
    assert "secret" not in str(caught.value)


def test_http_is_taken_where_that_is_asked_for():
    assert web.Server.at("http://archive.example.org/dicom-web/", insecure=True).base == "http://archive.example.org/dicom-web"


# ---------------------------------------------------------------- sizes


def test_a_series_that_memory_cannot_hold_is_left_with_both_numbers(archive, series, monkeypatch):
    monkeypatch.setattr(dicomweb, "_LOOK_BYTES", 1000)
    monkeypatch.setattr(memory, "free_bytes", lambda: 1_000_000 if archive.retrievals() == 0 else 2000)
    error = refusal(archive.keep_all(series), TooLargeError)
    assert error.sentence.startswith("The series ")
    assert "needs 0 MB of memory to be read, and 0 MB are free" in error.sentence
    assert archive.retrievals() == 1


def test_a_series_that_the_disk_cannot_hold_is_left_with_both_numbers(archive, series, monkeypatch):
    monkeypatch.setattr(dicomweb, "_LOOK_BYTES", 1000)
    monkeypatch.setattr(dicomweb.shutil, "disk_usage", lambda _: SimpleNamespace(free=150_000_000))
    assert "and 150 MB are left in" in refusal(archive.keep_all(series), TooLargeError).sentence


def test_a_series_of_too_many_objects_is_left(archive, series, monkeypatch):
    monkeypatch.setattr(dicomweb, "_MOST_OBJECTS", 5)
    assert "has more than 5 objects" in refusal(archive.keep_all(series), TooLargeError).sentence


@pytest.mark.slow
def test_little_memory_is_needed_for_a_long_object(archive, tmp_path):
    (slice_,) = dicoms.make_slices(np.zeros((1, 4000, 4000), np.int16), Geometry.from_axes((1, 4000, 4000), (1, 1, 1)))
    address = archive.keep_all([dicoms.save(slice_, tmp_path / "long.dcm")])
    code = f"""
import tracemalloc, pydicom
from sparseseg.cohort import dicomweb
tracemalloc.start()
with dicomweb.at_hand(({address!r},)) as (folder,):
    print(sum(path.stat().st_size for path in folder.iterdir()), tracemalloc.get_traced_memory()[1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    size, peak = map(int, done.stdout.split())
    assert size > 32_000_000
    assert peak < 4_000_000


def test_work_may_be_stopped_between_two_pieces(archive, series):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrieve(archive.keep_all(series), tick=stop)
    assert archive.retrievals() == 1


# ---------------------------------------------------------------- logins


def with_login(monkeypatch, archive, **names):
    for name, value in names.items():
        monkeypatch.setenv(getattr(web, name), value)
    archive.requests.clear()


def test_a_token_goes_to_the_host_that_it_is_for(archive, series, monkeypatch):
    archive.login = f"Bearer {SECRET}"
    with_login(monkeypatch, archive, HOST="localhost", TOKEN=SECRET)
    retrieve(archive.keep_all(series))
    assert {login for _, _, login in archive.requests} == {archive.login}


def test_a_user_and_password_may_hold_colons_and_umlauts(archive, series, monkeypatch):
    archive.login = "Basic TcO8bGxlcjphOmI="  # Müller, a:b
    host = archive.base.split("/")[2]
    with_login(monkeypatch, archive, HOST=host, LOGIN="Müller:a:b")
    assert retrieve(archive.keep_all(series))[0].shape == SHAPE


def test_a_login_is_sent_to_no_other_host(archive, series, monkeypatch):
    with_login(monkeypatch, archive, HOST="archive.example.org", TOKEN=SECRET)
    retrieve(archive.keep_all(series))
    assert {login for _, _, login in archive.requests} == {None}


def test_a_login_without_its_host_is_refused(archive, series, monkeypatch):
    with_login(monkeypatch, archive, TOKEN=SECRET)
    error = refusal(archive.keep_all(series))
    assert f"{web.TOKEN} does not say which server it is for" in error.sentence
    assert not archive.requests


def test_a_redirection_is_not_followed_and_sees_no_login(archive, series, monkeypatch):
    address = archive.keep_all(series)
    with archives.running() as other:
        archive.elsewhere = other.base.replace("localhost", "127.0.0.1")
        with_login(monkeypatch, archive, HOST="localhost", TOKEN=SECRET)
        error = refusal(address)
        with pytest.raises(InputError, match="sends requests on to 127"):
            dicomweb.store(archive.base, series[0])
        assert other.requests == []
    assert "sends requests on to 127.0.0.1" in error.sentence
    assert SECRET not in str(error)


def netrc(tmp_path, text):
    path = tmp_path / ".netrc"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def test_a_netrc_file_is_used(archive, series, tmp_path, monkeypatch):
    archive.login = "Basic YTpi"  # a, b
    monkeypatch.setenv("NETRC", str(netrc(tmp_path, "machine elsewhere login x password y\nmachine localhost login a password b\n")))
    assert retrieve(archive.keep_all(series))[0].shape == SHAPE


@pytest.mark.parametrize("text", [f"machine localhost login a {SECRET}", f"machine localhost login a password {SECRET} {SECRET}"])
def test_a_netrc_file_that_cannot_be_used_is_said_without_what_is_in_it(archive, series, tmp_path, monkeypatch, text):
    monkeypatch.setenv("NETRC", str(netrc(tmp_path, text)))
    error = refusal(archive.keep_all(series))
    assert "The netrc file cannot be used" in error.sentence
    assert SECRET not in str(error)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are those of POSIX")
def test_a_netrc_file_that_others_may_read_is_refused(archive, series, tmp_path):
    netrc(tmp_path, f"machine localhost login a password {SECRET}").chmod(0o644)
    assert "The netrc file cannot be used" in refusal(archive.keep_all(series)).sentence


def test_a_missing_netrc_file_is_said_where_it_was_named(archive, series, tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "nothing"))
    assert "The netrc file that NETRC names is not there" in refusal(archive.keep_all(series)).sentence


@pytest.mark.parametrize(
    ("given", "reason"), [(SECRET, "does not take the login that it was given (401 Unauthorized)"), (None, "wants a login, and none was given")]
)
def test_a_refused_login_is_said_without_it(archive, series, monkeypatch, given, reason):
    archive.login = "Bearer another"
    if given:
        with_login(monkeypatch, archive, HOST="localhost", TOKEN=given)
    error = refusal(archive.keep_all(series))
    assert reason in error.sentence
    assert SECRET not in str(error)
    assert len(archive.requests) == 1  # a wrong password is not tried again: that locks accounts


def test_a_login_that_no_header_can_hold_is_refused(archive, series, monkeypatch):
    with_login(monkeypatch, archive, HOST="localhost", TOKEN="one\ntwo")
    assert "characters that cannot be sent" in refusal(archive.keep_all(series)).sentence


def test_what_may_not_be_read_is_said(archive, series):
    address = archive.keep_all(series)
    archive.faults = ["403"]
    assert "does not allow this (403 Forbidden)" in refusal(address).sentence


@pytest.fixture
def certificate(tmp_path):
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    files = [tmp_path / "key.pem", tmp_path / "certificate.pem"]
    make = [
        program,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]
    subprocess.run([*make, "-keyout", files[0], "-out", files[1]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    return context, files[1]


def test_a_certificate_is_looked_at(archive, series, certificate, monkeypatch):
    context, file = certificate
    with archives.running(context=context) as guarded:
        address = guarded.keep_all(series)
        error = refusal(address)
        assert "The certificate of localhost:" in error.sentence
        assert "SSL_CERT_FILE" in error.advice
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert retrieve(address)[0].shape == SHAPE
        assert "not valid for '127.0.0.1'" in refusal(address.replace("localhost", "127.0.0.1")).sentence


# ---------------------------------------------------------------- querying


@pytest.fixture
def many(archive, tmp_path):
    """Seven series of one image, five CT and two MR; their addresses."""
    for n in range(7):
        (slice_,) = dicoms.make_slices(stored_values(n)[:1], GEOMETRY, series=f"series {n}", modality="CT" if n < 5 else "MR")
        archive.keep(dicoms.save(slice_, tmp_path / f"{n}.dcm").read_bytes())
    return [archive.address_of(uid) for uid in archive.objects]


@pytest.mark.parametrize(("query", "wanted"), [("Modality=CT", slice(5)), ("Modality=MR", slice(5, 7)), ("", slice(7))])
def test_a_query_finds_series(archive, many, query, wanted):
    assert [str(address) for address in dicomweb.find(archive.base + "/", query)] == sorted(many[wanted])


@pytest.mark.parametrize("counts_offset", [True, False])
def test_a_long_answer_comes_page_by_page_and_ends(archive, many, counts_offset):
    archive.page, archive.counts_offset = 3 if counts_offset else 100, counts_offset
    assert len(dicomweb.find(archive.base, "Modality=CT")) == 5
    assert len(archive.requests) == (3 if counts_offset else 2)


def test_a_query_that_finds_nothing_is_said(archive, many):
    with pytest.raises(InputError, match="finds no series for this query"):
        dicomweb.find(archive.base, "Modality=PT")


@pytest.mark.parametrize(("query", "reason"), [("Modality", "is not understood"), ("Modality=CT&limit=5", "The query sets limit")])
def test_a_query_that_cannot_be_asked_is_refused(archive, query, reason):
    with pytest.raises(InputError, match=reason):
        dicomweb.find(archive.base, query)
    assert not archive.requests


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>", "something else than a list"),
        (b"[1]", "something else than a list"),
        (b"[" * 100_000, "something else than a list"),
        (b'[{"0020000D": {"Value": ["1.2"]}}]', r"without the UID that it should have \(0020000E\)"),
        (b'[{"0020000E": {"Value": ["1.2"]}, "0020000D": {"Value": ["../../1"]}}]', r"without the UID that it should have \(0020000D\)"),
    ],
)
def test_an_answer_that_is_no_list_is_refused(archive, monkeypatch, content, reason):
    monkeypatch.setattr(web.Server, "read", lambda *_: content)
    with pytest.raises(InputError, match=reason):
        dicomweb.find(archive.base, "")


def test_an_answer_without_end_is_left(archive, many, monkeypatch):
    monkeypatch.setattr(dicomweb, "_MOST_BYTES", 1000)
    with pytest.raises(InputError, match="answers with more than 0 MB where a list is due"):
        dicomweb.find(archive.base, "")
    monkeypatch.undo()


def test_more_than_anybody_wants_is_refused(archive, many, monkeypatch):
    monkeypatch.setattr(dicomweb, "_MOST_ROWS", 5)
    with pytest.raises(InputError, match="finds more than 5 of them"):
        dicomweb.find(archive.base, "")


# ---------------------------------------------------------------- storing


@pytest.mark.parametrize("behind", ["", "/", "/studies", "/studies/"])
def test_a_file_is_stored_as_it_is(archive, series, behind):
    dicomweb.store(archive.base + behind, series[0])
    assert list(archive.objects.values()) == [series[0].read_bytes()]


@pytest.mark.parametrize("fault", ["503", "500"])
def test_a_storage_that_failed_for_a_moment_is_tried_again(archive, series, fault):
    archive.faults = [fault, fault]
    dicomweb.store(archive.base, series[0])
    assert len(archive.objects) == 1
    assert len(archive.requests) == 3


@pytest.mark.parametrize("fault", ["409 0111", "202 0111"])
def test_a_file_that_an_earlier_try_stored_counts_as_stored(archive, series, fault):
    archive.faults = [fault]
    dicomweb.store(archive.base, series[0])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("409 A700", r"does not store .* \(reason A700\)"),
        ("202 0122", r"does not store .* \(reason 0122\)"),
        ("200 C000", r"does not store .* \(reason C000\)"),
        ("409", r"does not store .* \(it does not say why\)"),
        ("415", "refuses the request .415 Unsupported Media Type"),
        ("404", "has nothing of that address"),
    ],
)
def test_a_file_that_is_not_taken_is_kept_and_the_reason_said(archive, series, fault, reason):
    archive.faults = [fault]
    with pytest.raises(InputError, match=reason):
        dicomweb.store(archive.base, series[0])
    assert series[0].exists()
    assert len(archive.requests) == 1


# ---------------------------------------------------------------- real data


@pytest.mark.slow
def test_real_data_come_as_they_are(archive, tmp_path):
    folder = SHARED / "ct-dicom" / "dicom"
    if not folder.is_dir():
        pytest.skip("development data ct-dicom is not beside the repository")
    address = archive.keep_all(dicoms.with_uids(folder, tmp_path))
    assert np.array_equal(retrieve(address)[0], io.read_volume(folder).array)
