import pytest

from msfc_ros.security import ENABLE, KEYSTORE, STRATEGY, check_security


@pytest.mark.parametrize(
    'environment',
    [
        {},
        {ENABLE: '', STRATEGY: 'enforce'},
        {ENABLE: 'false', STRATEGY: 'Enforce'},
        {ENABLE: 'False'},
        {ENABLE: '0'},
        {ENABLE: 'true'},
        {ENABLE: 'true', STRATEGY: 'Permissive'},
        {ENABLE: 'true', STRATEGY: 'Enforce', KEYSTORE: '/etc/msfc/keystore'},
    ],
)
def test_accepted(environment):
    check_security(environment)


@pytest.mark.parametrize(
    ('environment', 'said'),
    [
        ({ENABLE: 'TRUE'}, "ROS_SECURITY_ENABLE is 'TRUE'"),
        ({ENABLE: '1', STRATEGY: 'Enforce', KEYSTORE: 'k'}, "ROS_SECURITY_ENABLE is '1'"),
        ({ENABLE: 'true ', STRATEGY: 'Enforce'}, "ROS_SECURITY_ENABLE is 'true '"),
        ({ENABLE: 'true', STRATEGY: 'enforce', KEYSTORE: 'k'}, "STRATEGY is 'enforce'"),
        ({ENABLE: 'true', STRATEGY: 'Enforced', KEYSTORE: 'k'}, "STRATEGY is 'Enforced'"),
        ({ENABLE: 'true', STRATEGY: 'Enforce'}, 'ROS_SECURITY_KEYSTORE does not say'),
        ({ENABLE: 'true', STRATEGY: 'Enforce', KEYSTORE: ''}, 'ROS_SECURITY_KEYSTORE'),
    ],
)
def test_refused(environment, said):
    with pytest.raises(ValueError, match='ROS_SECURITY') as error:
        check_security(environment)
    assert said in str(error.value)
