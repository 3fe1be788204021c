import pytest


@pytest.fixture(scope='session')
def drawing():
    """Skip what needs MuJoCo to draw where it cannot."""
    try:
        import mujoco

        renderer = mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 16, 16)
        renderer.render()
        renderer.close()
    except Exception as error:  # each way of drawing fails in its own way
        pytest.skip(f'MuJoCo cannot draw without a screen here: {error}')
