"""Whether the maker of a lane's last commit lives is read off the ids of the group's members."""

from pavane_events.buses.kafka.signature import Signature

MADE = Signature("0.7", "shop.payment-1f3a", "shop.payment-1f3a-00-11")
STATIC = Signature("0.7", "shop.payment-1f3a", "pod-0-00-11")


def members(*names: str) -> dict[str, str]:
    """By these ids, those of their clients, which end where the broker's own part begins."""
    return {name: name.rsplit("-", 2)[0] for name in names}


def test_a_signature_is_read_as_it_was_written() -> None:
    assert Signature.parse(MADE.text()) == MADE
    assert Signature.parse("") == Signature()


def test_a_maker_lives_under_its_id_and_under_the_one_it_got_when_it_joined_anew() -> None:
    assert MADE.is_of_one(members("shop.payment-1f3a-00-11", "shop.payment-9999-00-22"))
    assert MADE.is_of_one(members("shop.payment-1f3a-77-88"))
    assert not MADE.is_of_one(members("shop.payment-9999-00-22"))
    assert not MADE.is_of_one({})


def test_who_took_the_place_of_a_static_member_is_not_taken_for_it_nor_it_for_him() -> None:
    assert STATIC.is_of_one(members("pod-0-00-11"))
    assert not STATIC.is_of_one(members("pod-0-77-88", "pod-1-00-11"))


def test_a_maker_that_an_earlier_version_signed_for_lives_while_its_client_does() -> None:
    signed = Signature.parse("0.7 shop.payment-1f3a")
    assert signed.is_of_one({"pod-0-00-11": "shop.payment-1f3a"})
    assert signed.is_of_one(members("shop.payment-1f3a-00-11"))
    assert not signed.is_of_one({"pod-0-00-11": "shop.payment-9999"})
