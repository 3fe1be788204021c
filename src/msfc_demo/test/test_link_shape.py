import pytest

from msfc_demo.link_shape import EXAMPLE, LinkShape, parse_link


@pytest.mark.parametrize(
    ('text', 'shape'),
    [
        ('200kbit', LinkShape(200e3)),
        ('2Mbit/s', LinkShape(2e6)),
        ('64000bit,loss=5%', LinkShape(64e3, loss=0.05)),
        ('0.5mbit, delay=80ms', LinkShape(500e3, delay=0.08)),
        (EXAMPLE, LinkShape(200e3, 0.05, 0.02, 60_000)),
        ('1Mbit,queue=1500B,loss=0.5%', LinkShape(1e6, 0.005, queue=1500)),
    ],
)
def test_what_is_understood(text, shape):
    assert parse_link(text) == shape


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', 'no rate'),
        ('200', 'no rate'),
        ('-1kbit', 'no rate'),
        ('200kbit,5%', 'not understood'),
        ('200kbit,loss=0.05', 'not understood'),
        ('200kbit,loss=100%', 'less than 100%'),
        ('200kbit,delay=1', 'not understood'),
        ('200kbit,delay=11000ms', '10000ms at most'),
        ('200kbit,queue=1kB', 'hold a packet'),
        ('200kbit,loss=1%,loss=2%', 'given twice'),
        ('200kbit,jitter=5ms', 'not understood'),
        ('2000Mbit', '1000Mbit'),
        ('999bit', '1kbit'),
    ],
)
def test_what_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_link(text)


def test_words():
    assert str(parse_link(EXAMPLE)) == ('200 kbit/s, 5 % of the packets lost, 20 ms on the way')
    assert 'lost' not in str(LinkShape(2e6))
