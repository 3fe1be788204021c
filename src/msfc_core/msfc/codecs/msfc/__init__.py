"""The codec of the paper (MSFC, ICME 2021).

Modules follow the paper: :mod:`~msfc.codecs.msfc.msff` (fusion), :mod:`~msfc.codecs.msfc.ssfc`
(channel codec), :mod:`~msfc.codecs.msfc.msfr` (reconstruction), all in
:class:`~msfc.codecs.msfc.codec.MSFC`.
"""
