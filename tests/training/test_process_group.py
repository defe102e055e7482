"""By which interface workers on several hosts reach each other."""

import socket

import psutil

from asclepius_ray.training.process_group import interface_of


def test_the_interface_is_that_of_the_address_that_ray_knows_the_node_by() -> None:
    for name, addresses in psutil.net_if_addrs().items():
        for found in addresses:
            if found.family in (socket.AF_INET, socket.AF_INET6):
                assert interface_of(found.address.partition("%")[0]) == name


def test_an_address_of_another_machine_has_no_interface_here() -> None:
    assert interface_of("203.0.113.7") == ""
