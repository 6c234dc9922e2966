"""The API without any front: etcd's recorded answers, byte for byte, and what is asked of the node."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common_raft.keyspace import Event, Node, Set
from common_raft.tests.web_fakes import FakeFailure, FakeNode
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.response import Response
from common_raft.web.stats import go_duration

FORM = b"application/x-www-form-urlencoded"
CORS = (
    b"Access-Control-Allow-Headers: accept, content-type, authorization\r\n"
    b"Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE\r\n"
    b"Access-Control-Allow-Origin: *\r\n"
)
JSON = CORS + b"Content-Type: application/json\r\n"
KEYS = JSON + b"X-Etcd-Cluster-Id: f1b301c7dda370d8\r\n"
PLAIN = b"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"


class Api:
    """An ``EtcdV2`` on a fake node, asked as a front would ask it."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.etcd = EtcdV2(self.node, self.node.keyspace)

    def __call__(
        self, method: str, target: bytes | str, body: bytes = b"", content_type: bytes | None = FORM
    ) -> Response:
        answers: list[Response] = []
        raw = target.encode() if isinstance(target, str) else target
        self.etcd.handle(method, raw, content_type, body, answers.append)
        (answer,) = answers
        return answer


@pytest.fixture
def api() -> Api:
    return Api()


def test_a_new_key_is_answered_as_etcd_does(api: Api) -> None:
    assert api("PUT", "/v2/keys/a", b"value=1") == Response(
        201,
        KEYS + b"X-Etcd-Index: 1\r\nX-Raft-Index: 4\r\nX-Raft-Term: 2\r\n",
        b'{"action":"set","node":{"key":"/a","value":"1","modifiedIndex":1,"createdIndex":1}}\n',
    )


def test_a_changed_key_is_answered_as_etcd_does(api: Api) -> None:
    api("PUT", "/v2/keys/a", b"value=1")
    assert api("PUT", "/v2/keys/a", b"value=2") == Response(
        200,
        KEYS + b"X-Etcd-Index: 2\r\nX-Raft-Index: 5\r\nX-Raft-Term: 2\r\n",
        b'{"action":"set","node":{"key":"/a","value":"2","modifiedIndex":2,"createdIndex":2},'
        b'"prevNode":{"key":"/a","value":"1","modifiedIndex":1,"createdIndex":1}}\n',
    )


def test_a_read_is_answered_as_etcd_does(api: Api) -> None:
    api("PUT", "/v2/keys/a", b"value=1")
    expected = Response(
        200,
        KEYS + b"X-Etcd-Index: 1\r\nX-Raft-Index: 4\r\nX-Raft-Term: 2\r\n",
        b'{"action":"get","node":{"key":"/a","value":"1","modifiedIndex":1,"createdIndex":1}}\n',
    )
    for target in (
        "/v2/keys/a",
        "/v2/keys/a/",
        "/v2/keys/%61",
        "/v2/keys/a?quorum=true",
        "/v2/keys/a?sorted=true",
    ):
        assert api("GET", target) == expected
    assert api("HEAD", "/v2/keys/a") == expected  # the front leaves the body out


def test_a_deleted_key_is_answered_as_etcd_does(api: Api) -> None:
    api("PUT", "/v2/keys/a", b"value=1")
    assert api("DELETE", "/v2/keys/a") == Response(
        200,
        KEYS + b"X-Etcd-Index: 2\r\nX-Raft-Index: 5\r\nX-Raft-Term: 2\r\n",
        b'{"action":"delete","node":{"key":"/a","modifiedIndex":2,"createdIndex":1},'
        b'"prevNode":{"key":"/a","value":"1","modifiedIndex":1,"createdIndex":1}}\n',
    )


def test_a_missing_key_is_answered_as_etcd_does(api: Api) -> None:
    api("PUT", "/v2/keys/a", b"value=1")
    expected = Response(
        404,
        KEYS + b"X-Etcd-Index: 1\r\n",
        b'{"errorCode":100,"message":"Key not found","cause":"/b","index":1}\n',
    )
    assert api("GET", "/v2/keys/b") == expected
    assert api("DELETE", "/v2/keys/b") == expected
    assert api("PUT", "/v2/keys/b", b"value=1&prevExist=true") == expected


def test_create_and_update_follow_prev_exist(api: Api) -> None:
    assert api("PUT", "/v2/keys/a", b"value=1&prevExist=false").status == 201
    assert api("PUT", "/v2/keys/a", b"value=2&prevExist=false").body == (
        b'{"errorCode":105,"message":"Key already exists","cause":"/a","index":1}\n'
    )
    assert api("PUT", "/v2/keys/a?prevExist=true&value=3").body == (
        b'{"action":"update","node":{"key":"/a","value":"3","modifiedIndex":2,"createdIndex":1},'
        b'"prevNode":{"key":"/a","value":"1","modifiedIndex":1,"createdIndex":1}}\n'
    )


def test_no_value_on_success_leaves_only_the_action(api: Api) -> None:
    answer = api("PUT", "/v2/keys/a", b"value=1&noValueOnSuccess=true")
    assert (answer.status, answer.body) == (201, b'{"action":"set"}\n')
    assert b'"prevNode"' in api("DELETE", "/v2/keys/a?noValueOnSuccess=true").body


def test_values_are_escaped_as_go_escapes_them(api: Api) -> None:
    body = api("PUT", "/v2/keys/a", b"value=%3C%0A%FF%C3%BC%E2%80%A8").body
    assert '"value":"\\u003c\\n\\ufffdü\\u2028"'.encode() in body


@pytest.mark.parametrize(
    ("method", "target", "body", "code", "cause"),
    [
        ("GET", "/v2/keys/a?quorum=x", b"", 209, 'invalid value for \\"quorum\\"'),
        ("GET", "/v2/keys/a?quorum=", b"", 209, 'invalid value for \\"quorum\\"'),
        ("GET", "/v2/keys/a?waitIndex=x", b"", 203, 'invalid value for \\"waitIndex\\"'),
        ("GET", "/v2/keys/a?x=%zz", b"", 210, 'invalid URL escape \\"%zz\\"'),
        ("PUT", "/v2/keys/a", b"value=%z", 210, 'invalid URL escape \\"%z\\"'),
        ("PUT", "/v2/keys/a", b"prevIndex=-1&dir=x", 203, 'invalid value for \\"prevIndex\\"'),
        ("PUT", "/v2/keys/a", b"dir=x&wait=true", 209, 'invalid value for \\"dir\\"'),
        ("PUT", "/v2/keys/a", b"wait=true&prevValue=", 209, '\\"wait\\" can only be used with GET requests'),
        ("PUT", "/v2/keys/a", b"prevValue=&ttl=x", 201, '\\"prevValue\\" cannot be empty'),
        ("PUT", "/v2/keys/a", b"ttl=x&prevExist=x", 202, 'invalid value for \\"ttl\\"'),
        ("PUT", "/v2/keys/a", b"prevExist=x&refresh=x", 209, "invalid value for prevExist"),
        ("PUT", "/v2/keys/a", b"refresh=x", 209, "invalid value for refresh"),
        ("PUT", "/v2/keys/a", b"refresh=true&value=x", 211, "A value was provided on a refresh"),
        ("PUT", "/v2/keys/a", b"refresh=true", 212, "No TTL value set"),
    ],
)
def test_bad_parameters_get_etcds_errors_in_etcds_order(
    api: Api, method: str, target: str, body: bytes, code: int, cause: str
) -> None:
    answer = api(method, target, body)
    assert answer.status == 400
    assert answer.head == KEYS + b"X-Etcd-Index: 0\r\n"
    assert re.fullmatch(
        rf'{{"errorCode":{code},"message":"[^"]+","cause":"{re.escape(cause)}","index":0}}\n',
        answer.body.decode(),
    )


@pytest.mark.parametrize("content_type", [b";", b"a b", b"application/x-www-form-urlencoded; charset"])
def test_a_content_type_that_go_cannot_read_is_a_bad_form(api: Api, content_type: bytes) -> None:
    answer = api("PUT", "/v2/keys/a", b"value=1", content_type)
    assert (answer.status, b'"errorCode":210' in answer.body) == (400, True)
    for method in ("GET", "DELETE"):  # only of PUT and POST is the body read
        assert api(method, "/v2/keys/a?x", b"value=%zz", content_type).status in (200, 404)


@pytest.mark.parametrize("content_type", [None, b"", b"text/plain", b"multipart/form-data; boundary=x"])
def test_a_body_that_is_no_form_is_ignored(api: Api, content_type: bytes | None) -> None:
    assert b'"value":""' in api("PUT", "/v2/keys/a", b"value=1", content_type).body


def test_the_form_wins_over_the_query_and_the_first_over_the_second(api: Api) -> None:
    assert b'"value":"form"' in api("PUT", "/v2/keys/a?value=query", b"value=form&value=late").body


@pytest.mark.parametrize(
    ("method", "query", "error"),
    [
        ("PUT", "", b'{"errorCode":107,"message":"Root is read only","cause":"/","index":1}\n'),
        ("PUT", "?prevValue=x", b'{"errorCode":107,"message":"Root is read only","cause":"/","index":1}\n'),
        ("DELETE", "", b'{"errorCode":107,"message":"Root is read only","cause":"/","index":1}\n'),
        ("DELETE", "?prevIndex=3", b'{"errorCode":102,"message":"Not a file","index":1}\n'),
    ],
)
def test_the_root_cannot_be_changed(api: Api, method: str, query: str, error: bytes) -> None:
    api("PUT", "/v2/keys/a", b"value=1")
    for target in ("/v2/keys", "/v2/keys/"):
        assert api(method, target + query).body == error


@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET"])
def test_a_node_that_cannot_answer_is_error_300(api: Api, method: str) -> None:
    api.node.failure = FakeFailure("etcdserver: request timed out")
    assert api(method, "/v2/keys/a?quorum=true&value=1") == Response(
        500,
        KEYS + b"X-Etcd-Index: 0\r\n",
        b'{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: request timed out","index":0}\n',
    )


def test_default_reads_do_not_ask_the_cluster(api: Api) -> None:
    api.node.failure = FakeFailure("etcdserver: request timed out")
    assert api("GET", "/v2/keys/a").status == 404
    assert api("HEAD", "/v2/keys/a?quorum=true").status == 404


def test_other_pages_are_etcds(api: Api) -> None:
    assert api("GET", "/version?x=%zz") == Response(
        200, JSON, b'{"etcdserver":"3.5.1","etcdcluster":"3.5.0"}'
    )
    assert api("GET", "/health").body == b'{"health":"true","reason":""}'
    for target in ("/", "/v2", "/v2/keysx", "/version/", "/v2/stats/self/"):
        assert api("GET", target) == Response(404, CORS + PLAIN, b"404 page not found\n")


def test_only_the_methods_of_etcd_are_allowed(api: Api) -> None:
    not_allowed = Response(
        405, CORS + b"Allow: HEAD,GET,PUT,POST,DELETE\r\n" + PLAIN, b"Method Not Allowed\n"
    )
    for method in ("PATCH", "FOO", "get"):
        assert api(method, "/v2/keys/a") == not_allowed
    for target in ("/version", "/health", "/v2/stats/self", "/v2/stats/leader", "/v2/stats/store"):
        for method in ("HEAD", "PUT", "FOO"):
            assert api(method, target) == Response(
                405, CORS + b"Allow: GET\r\n" + PLAIN, b"Method Not Allowed\n"
            )
    assert api("OPTIONS", "/anything//at/all") == Response(200, CORS, b"")


def test_paths_that_are_not_clean_are_redirected(api: Api) -> None:
    html = b"Content-Type: text/html; charset=utf-8\r\n"
    assert api("GET", "//v2/keys/%2e%2e/keys//a%20%22?b=%27&c") == Response(
        301,
        CORS + html + b"Location: /v2/keys/a%20%22?b=%27&c\r\n",
        b'<a href="/v2/keys/a%20%22?b=%27&amp;c">Moved Permanently</a>.\n\n',
    )
    assert api("PUT", "/v2/keys//a") == Response(301, CORS + b"Location: /v2/keys/a\r\n", b"")
    assert api("HEAD", "/v2/keys//a") == Response(301, CORS + html + b"Location: /v2/keys/a\r\n", b"")


def test_health_needs_a_leader_that_answers(api: Api) -> None:
    api.node.failure = FakeFailure("etcdserver: request timed out")
    assert api("GET", "/health") == Response(
        503, CORS + PLAIN, b'{"health":"false","reason":"QGET ERROR:etcdserver: request timed out"}\n'
    )
    api.node.leader = 0
    assert api("GET", "/health").body == b'{"health":"false","reason":"RAFT NO LEADER"}\n'


def test_a_node_is_not_healthy_before_clients_can_be_told_of_it(api: Api) -> None:
    api.node.published = False
    answer = api("GET", "/health")
    assert answer.status == 503
    assert b"the cluster does not know yet where clients find this member" in answer.body
    api.node.published = True
    assert api("GET", "/health").status == 200


def test_stats_tell_who_leads(api: Api) -> None:
    when = rb'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"'
    assert re.fullmatch(
        rb'{"name":"n1","id":"3115797e2b89d053","state":"StateLeader","startTime":'
        + when
        + rb',"leaderInfo":{"leader":"3115797e2b89d053","uptime":"1m1.5s","startTime":'
        + when
        + rb'},"recvAppendRequestCnt":7,"sendAppendRequestCnt":9}',
        api("GET", "/v2/stats/self").body,
    )
    api.node.leader = 5
    assert b'"state":"StateFollower"' in api("GET", "/v2/stats/self").body
    assert b'"leader":"5"' in api("GET", "/v2/stats/self").body


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (7, "7ns"),
        (1500, "1.5µs"),
        (792620356, "792.620356ms"),
        (10**9, "1s"),
        (3723 * 10**9 + 1, "1h2m3.000000001s"),
        (60 * 10**9, "1m0s"),
    ],
)
def test_durations_are_written_as_by_go(nanoseconds: int, text: str) -> None:
    assert go_duration(nanoseconds) == text


def test_the_header_block_can_be_had_in_pairs() -> None:
    response = Response(200, b"A: b: c\r\nD: e\r\n", b"")
    assert response.headers() == [(b"a", b"b: c"), (b"d", b"e")]


PIECES = st.sampled_from(
    [
        b"/v2/keys/",
        b"/v2/keys",
        b"/",
        b"a",
        b"d",
        b".",
        b"..",
        b"%41",
        b"%2e",
        b"%zz",
        b"~",
        b"-",
        b"?",
        b"quorum=true",
        b"value=1",
        b"&",
        b"\xff",
        b"+",
    ]
)
BODIES = st.lists(
    st.sampled_from([b"value=", b"x", b".", b"%41", b"%zz", b"+", b"&", b";", b"dir=x", b"value=2", b"\xff"]),
    max_size=4,
).map(b"".join)


@given(st.sampled_from(["GET", "PUT", "HEAD", "DELETE"]), st.lists(PIECES, max_size=5).map(b"".join), BODIES)
def test_the_short_cut_for_plain_requests_gives_what_the_long_way_gives(
    method: str, target: bytes, body: bytes
) -> None:
    short, long = Api(), Api()
    answers: list[Response] = []
    for api in (short, long):
        for key in ("/a", "/d/x", "/d/_y"):
            api.node.propose(Set(key, "old"), lambda result: None)
    long.etcd.handle_any(method, b"/v2/keys/" + target, FORM, body, answers.append)
    assert short(method, b"/v2/keys/" + target, body) == answers[0]


def test_a_directory_is_listed_without_what_is_hidden(api: Api) -> None:
    for key in ("d/b", "d/a", "d/_hidden", "d/sub/x", "d/empty?dir=true"):
        api("PUT", f"/v2/keys/{key}", b"value=1" if "?" not in key else b"")
    assert api("GET", "/v2/keys/d?sorted=true").body == (
        b'{"action":"get","node":{"key":"/d","dir":true,"nodes":['
        b'{"key":"/d/a","value":"1","modifiedIndex":2,"createdIndex":2},'
        b'{"key":"/d/b","value":"1","modifiedIndex":1,"createdIndex":1},'
        b'{"key":"/d/empty","dir":true,"modifiedIndex":5,"createdIndex":5},'
        b'{"key":"/d/sub","dir":true,"modifiedIndex":4,"createdIndex":4}'
        b'],"modifiedIndex":1,"createdIndex":1}}\n'
    )
    assert b'"nodes":[{"key":"/d/sub/x","value":"1"' in api("GET", "/v2/keys/d?recursive=true").body


def test_the_root_has_neither_a_key_nor_indexes(api: Api) -> None:
    assert api("GET", "/v2/keys").body == b'{"action":"get","node":{"dir":true}}\n'
    api("PUT", "/v2/keys/a", b"value=1")
    for target in ("/v2/keys", "/v2/keys/", "/v2/keys?quorum=true", "/v2/keys/?recursive=true&sorted=true"):
        assert api("GET", target).body == (
            b'{"action":"get","node":{"dir":true,"nodes":['
            b'{"key":"/a","value":"1","modifiedIndex":1,"createdIndex":1}]}}\n'
        )


def test_directories_may_be_as_deep_as_a_target_is_long(api: Api) -> None:
    depth = 1200  # more than calls may be nested
    key = "/d" * depth
    assert api("PUT", "/v2/keys" + key, b"value=1").status == 201
    assert json_depth(api("GET", "/v2/keys?recursive=true").body) == 2 * depth + 2
    assert api("DELETE", "/v2/keys/d?recursive=true").status == 200


def json_depth(text: bytes) -> int:
    depth = deepest = 0
    for byte in text:
        depth += (byte in b"{[") - (byte in b"}]")
        deepest = max(deepest, depth)
    assert depth == 0
    return deepest


def test_post_names_nodes_in_order(api: Api) -> None:
    for number in (1, 2):
        answer = api("POST", "/v2/keys/queue", b"value=%d" % number)
        assert (answer.status, answer.body) == (
            201,
            b'{"action":"create","node":{"key":"/queue/%020d","value":"%d","modifiedIndex":%d,"createdIndex":%d}}\n'
            % (number, number, number, number),
        )
    assert b'"key":"/00000000000000000003"' in api("POST", "/v2/keys", b"value=1").body
    directory = api("POST", "/v2/keys/queue?dir=true&prevExist=true&noValueOnSuccess=true")
    assert (directory.status, directory.body) == (201, b'{"action":"create"}\n')


def test_a_comparison_that_fails_tells_the_parts_that_differ(api: Api) -> None:
    api("PUT", "/v2/keys/a", b"value=1")
    for query, cause in (
        ("prevValue=2", "[2 != 1]"),
        ("prevIndex=7", "[7 != 1]"),
        ("prevValue=2&prevIndex=7", "[2 != 1] [7 != 1]"),
        ("prevValue=1&prevIndex=7", "[7 != 1]"),
        ("prevValue=2&prevIndex=7&prevExist=true", "[2 != 1] [7 != 1]"),
    ):
        for answer in (api("PUT", f"/v2/keys/a?{query}&value=x"), api("DELETE", f"/v2/keys/a?{query}")):
            assert (answer.status, answer.body.decode()) == (
                412,
                f'{{"errorCode":101,"message":"Compare failed","cause":"{cause}","index":1}}\n',
            )


def test_a_comparison_that_holds_keeps_the_created_index(api: Api) -> None:
    api("PUT", "/v2/keys/a", b"value=1")
    assert api("PUT", "/v2/keys/a", b"value=2&prevValue=1&prevIndex=1").body == (
        b'{"action":"compareAndSwap","node":{"key":"/a","value":"2","modifiedIndex":2,"createdIndex":1},'
        b'"prevNode":{"key":"/a","value":"1","modifiedIndex":1,"createdIndex":1}}\n'
    )
    assert api("PUT", "/v2/keys/a", b"value=3&prevIndex=2&noValueOnSuccess=true").body == (
        b'{"action":"compareAndSwap"}\n'
    )
    assert api("DELETE", "/v2/keys/a?prevIndex=3&noValueOnSuccess=true").body == (
        b'{"action":"compareAndDelete","node":{"key":"/a","modifiedIndex":4,"createdIndex":1},'
        b'"prevNode":{"key":"/a","value":"3","modifiedIndex":3,"createdIndex":1}}\n'
    )


def test_the_cause_is_the_path_that_is_missing_or_in_the_way(api: Api) -> None:
    api("PUT", "/v2/keys/dir/file", b"value=1")
    for target, error in (
        ("/v2/keys/none/x/y", b'"errorCode":100,"message":"Key not found","cause":"/none"'),
        ("/v2/keys/dir/x/y", b'"errorCode":100,"message":"Key not found","cause":"/dir/x"'),
        ("/v2/keys/dir/file/x", b'"errorCode":104,"message":"Not a directory","cause":"/dir/file"'),
    ):
        assert error in api("GET", target).body, target
    assert b'"errorCode":104,"message":"Not a directory","cause":"/dir/file"' in (
        api("PUT", "/v2/keys/dir/file/x/y", b"value=1").body
    )
    assert b'"errorCode":102,"message":"Not a file","cause":"/dir"' in (
        api("PUT", "/v2/keys/dir", b"value=1").body
    )
    assert b'"errorCode":108,"message":"Directory not empty","cause":"/dir"' in (
        api("DELETE", "/v2/keys/dir?dir=true").body
    )


def test_a_ttl_is_told_as_the_time_that_it_ends_and_what_is_left(api: Api) -> None:
    body = api("PUT", "/v2/keys/a", b"value=1&ttl=100").body.decode()
    expiration = re.search('"expiration":"([^"]*)"', body)
    assert expiration is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,8}[1-9]|\.[1-9])?Z", expiration[1])
    assert '"value":"1","expiration":"' + expiration[1] + '","ttl":100,"modifiedIndex":1' in body
    refreshed = api("PUT", "/v2/keys/a", b"ttl=1000&refresh=true").body
    assert b'"value":"1","expiration"' in refreshed
    assert b'"refresh"' not in refreshed
    assert b'"ttl":1000,' in refreshed
    assert b'"ttl"' not in api("PUT", "/v2/keys/a", b"value=1&ttl=&prevExist=true").body.split(b"prevNode")[0]


def test_a_ttl_of_0_is_over_at_once_and_shows_no_ttl(api: Api) -> None:
    body = api("PUT", "/v2/keys/a", b"value=1&ttl=0").body
    assert b'"expiration":"' in body
    assert b'"ttl"' not in body


def test_head_is_a_get_that_never_asks_the_cluster(api: Api) -> None:
    api("PUT", "/v2/keys/d/a", b"value=1")
    api.node.failure = FakeFailure("etcdserver: request timed out")
    for target in ("/v2/keys/d?quorum=true&recursive=true", "/v2/keys/d?recursive=true"):
        assert b'"key":"/d/a"' in api("HEAD", target).body


def test_a_quorum_read_does_not_wait(api: Api) -> None:
    api("PUT", "/v2/keys/a", b"value=1")
    assert b'"action":"get"' in api("GET", "/v2/keys/a?wait=true&quorum=true&stream=true").body


@given(
    st.text(max_size=8), st.binary(max_size=40), st.none() | st.binary(max_size=20), st.binary(max_size=40)
)
def test_whatever_a_client_sends_gets_one_answer(
    method: str, target: bytes, content_type: bytes | None, body: bytes
) -> None:
    for path in (target, b"/v2/keys/" + target):
        assert 200 <= Api()(method, path, body, content_type).status <= 501


def test_an_event_without_a_value_is_a_deleted_node() -> None:
    assert Event("delete", Node("/a", None, 2, 1), None, 2).created is False
