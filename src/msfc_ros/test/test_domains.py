from msfc_ros import domains
from msfc_ros.domains import free_domain, held_domain


def test_domain_is_nobodys(monkeypatch):
    with held_domain() as taken:
        # Others on this machine may have some of these, but hardly all.
        others = [domain for domain in domains.DOMAINS if domain != taken][:5]
        monkeypatch.setattr(domains, 'DOMAINS', [taken, *others])
        assert {free_domain() for _ in range(50)} <= set(others)
