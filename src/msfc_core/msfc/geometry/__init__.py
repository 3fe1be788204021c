"""Objects in metres: masks and a registered depth image to points and upright boxes.

NumPy alone, so that it runs on a robot without PyTorch. Cameras look along z, x is to their right
and y down (REP 103, optical frames).
"""
